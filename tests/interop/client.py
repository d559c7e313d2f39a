"""A client program, controlled by lines of JSON on its stdin.

    {"do": "open", "channel": "a", "target": "xds:///hello-server.default:50051", "idle_seconds": 1.0}
    {"do": "call", "channel": "a", "times": 3, "concurrency": 1, <call>}
    {"do": "load_start", "channel": "a", "parallelism": 2, "interval_seconds": 0.01, <call>}
    {"do": "load_stop", "channel": "a"}
    {"do": "close", "channel": "a"}
    {"do": "serve", "name": "go-1", "port": 50051}

where <call> is

    "method": "/greeter.v1.Greeter/SayHello", "metadata": {"x-user": "1"}, "timeout_seconds": 5.0, "wait_for_ready": true

It answers each with a line: {} for a channel and a started load; for calls
{"hosts": [...], "failures": [{"code": ..., "details": ..., "milliseconds": ...}], "milliseconds": [...]}; for a stopped
load {"hosts": {"hello-1": 12}, "failures": [...], "slowest": ...}; {"error": ...} for commands that it cannot execute.
It exits when its stdin ends.
"""

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypedDict, Unpack

from tests.support.waiting import DEADLINE, wait_until

TIMEOUT = 10.0
"""Timeout of a call in seconds."""


SAY_HELLO = "/greeter.v1.Greeter/SayHello"


@dataclass
class Replies:
    """The results of some calls, in order if they were made one after another.

    Attributes:
        hosts: The hosts that replied.
        failures: The `code`, `details` and `milliseconds` of each call that failed.
        milliseconds: How long each call took.
    """

    hosts: list[str]
    failures: list[dict[str, Any]]
    milliseconds: list[float] = field(default_factory=list, compare=False)


class LoadResult(NamedTuple):
    """The results of a load.

    Attributes:
        hosts: The number of replies of each host.
        failures: As of Replies.
        slowest: The milliseconds of the longest call.
    """

    hosts: dict[str, int]
    failures: list[dict[str, Any]]
    slowest: float


class CallOptions(TypedDict, total=False):
    """How calls are made.

    Attributes:
        patient: Whether they set wait_for_ready; by default they do.
        seconds: The timeout of each call; TIMEOUT by default.
        method: The path; SAY_HELLO by default.
        metadata: Headers; none by default.
    """

    patient: bool
    seconds: float
    method: str
    metadata: Mapping[str, str]


class Client(Protocol):
    """A client with named channels."""

    def open(self, channel: str, target: str, *, idle_seconds: float | None = None) -> None:
        """Creates a channel to a target."""

    def call(
        self, channel: str, times: int = 1, *, patient: bool = True, seconds: float = TIMEOUT
    ) -> Replies:
        """Makes calls one after another; `patient` ones set wait_for_ready."""


class Program:
    """A client process."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
            code = self._process.wait(DEADLINE)
            assert code == 0 or error is not None, f"the client exited with code {code}: {self.errors()}"
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
            if error is not None:
                print(self.errors())  # noqa: T201 - pytest shows it of a test that fails
            self._stderr.close()

    def errors(self) -> str:
        """Returns the end of its stderr."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="backslashreplace")[-4000:]

    def open(self, channel: str, target: str, *, idle_seconds: float | None = None) -> None:
        idle = {} if idle_seconds is None else {"idle_seconds": idle_seconds}
        self._ask({"do": "open", "channel": channel, "target": target} | idle, DEADLINE)

    def serve(self, name: str, port: int) -> None:
        """Serves a greeter of this name, as the control plane says, until the program ends."""
        self._ask({"do": "serve", "name": name, "port": port}, DEADLINE)

    def call(
        self, channel: str, times: int = 1, *, concurrency: int = 1, **options: Unpack[CallOptions]
    ) -> Replies:
        """Makes calls, this many at once."""
        command = {"do": "call", "channel": channel, "times": times, "concurrency": concurrency}
        patience = times * options.get("seconds", TIMEOUT) + DEADLINE
        return Replies(**self._ask(command | _fields(options), patience))

    def start_load(
        self, channel: str, *, parallelism: int, interval: float, **options: Unpack[CallOptions]
    ) -> None:
        """Makes calls in the background, with pauses of `interval` seconds."""
        command = {"do": "load_start", "channel": channel} | _fields(options)
        self._ask(command | {"parallelism": parallelism, "interval_seconds": interval}, DEADLINE)

    def stop_load(self, channel: str) -> LoadResult:
        """Waits for the calls in flight and returns the results."""
        return LoadResult(**self._ask({"do": "load_stop", "channel": channel}, TIMEOUT + DEADLINE))

    def _ask(self, command: dict[str, Any], patience: float) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"no answer to {command} within {patience:.0f} s") from None
        assert line, f"the client exited instead of answering {command}: {self.errors()}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer
        return answer

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")


def _fields(options: CallOptions) -> dict[str, Any]:
    return {
        "wait_for_ready": options.get("patient", True),
        "timeout_seconds": options.get("seconds", TIMEOUT),
        "method": options.get("method", SAY_HELLO),
        "metadata": dict(options.get("metadata", {})),
    }


def call_until(
    client: Client, channel: str, what: str, seen: Callable[[Replies], bool], times: int = 6, **options: Any
) -> list[dict[str, Any]]:
    """Makes rounds of calls until the replies of a round are as wanted; returns all failures until then."""
    failures: list[dict[str, Any]] = []

    def look() -> bool:
        replies = client.call(channel, times, **options)
        failures.extend(replies.failures)
        return seen(replies)

    wait_until(what, look)
    return failures


def alternate(hosts: Sequence[str], among: int) -> bool:
    """Returns whether this number of hosts replied strictly in turn."""
    regular = all(hosts[i] == hosts[i - among] for i in range(among, len(hosts)))
    return regular and len(set(hosts)) == among and len(hosts) >= 2 * among
