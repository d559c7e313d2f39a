"""A client program, controlled by lines of JSON on its stdin.

    {"do": "open", "channel": "a", "target": "xds:///hello-server.default:50051", "idle_seconds": 1.0}
    {"do": "call", "channel": "a", "times": 3, "timeout_seconds": 5.0, "wait_for_ready": true}
    {"do": "close", "channel": "a"}

It answers each with a line: {} for a channel, {"hosts": [...], "failures": [{"code": ..., "details": ...}]} for calls,
{"error": ...} for commands that it cannot execute. It exits when its stdin ends.
"""

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from tests.support.waiting import DEADLINE, wait_until

TIMEOUT = 10.0
"""Timeout of a call in seconds."""


class Replies(NamedTuple):
    """The results of some calls, in order.

    Attributes:
        hosts: The hosts that replied.
        failures: The `code` and `details` of each call that failed.
    """

    hosts: list[str]
    failures: list[dict[str, str]]


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

    def call(
        self, channel: str, times: int = 1, *, patient: bool = True, seconds: float = TIMEOUT
    ) -> Replies:
        command = {"do": "call", "channel": channel, "times": times, "wait_for_ready": patient}
        answer = self._ask(command | {"timeout_seconds": seconds}, times * seconds + DEADLINE)
        return Replies(**answer)

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


def call_until(
    client: Client, channel: str, what: str, seen: Callable[[Replies], bool], times: int = 6, **options: Any
) -> list[dict[str, str]]:
    """Makes rounds of calls until the replies of a round are as wanted; returns all failures until then."""
    failures: list[dict[str, str]] = []

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
