"""A program that runs, and what it has written so far."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import DEADLINE, wait_until

BIN = Path(sys.executable).parent
_PASSED_ON = ("HOME", "LANG", "PATH", "RPC_TRANSPORT", "TMPDIR")


def environment(**settings: str) -> dict[str, str]:
    """Makes an environment in which no setting of whoever runs the tests changes a program."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | settings


def free_port() -> int:
    """Returns a free port that no other test takes before its user has opened it.

    It is outside of the ranges from which the kernel and Kubernetes take ports. Each worker
    of pytest has 1,000 ports of its own, and a process is given each of them once before any
    of them again.
    """
    while True:
        port = next(_ports)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def _ports_of(worker: str) -> Iterator[int]:
    """Yields the ports of a worker ("gw3"; "" without pytest-xdist) for ever, in an order of this process."""
    start = 20_000 + int(worker.removeprefix("gw") or 0) % 10 * 1_000
    ports = list(range(start, start + 1_000))
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


_ports = _ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""))


class Running:
    """A program in a session of its own, whose stdout and stderr are read line by line.

    Unless they go elsewhere: `log` is the file descriptor for both.
    """

    def __init__(self, *command: str, env: Mapping[str, str], log: int = subprocess.PIPE) -> None:
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the program, by force after 10 s, and prints what it wrote if the test has failed."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        if error is not None:
            sys.stdout.write("\n".join(self.lines[-400:]) + "\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """All lines until now."""
        return self._lines[:]

    @property
    def records(self) -> list[dict[str, Any]]:
        """All lines until now that are JSON."""
        return records(self.lines)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Sends a signal to all of its process group, as a terminal does for Ctrl-C."""
        os.killpg(self._process.pid, number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Waits until it has ended and all that it wrote is read; returns the exit code."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        if self._process.stdout:
            self._process.stdout.close()
        return code

    def wait_for_line(self, *parts: str) -> str:
        """Waits for a line with all these parts and returns it."""
        found = wait_until(
            f"a line with {parts} among the output",
            lambda: [line for line in self.lines if all(part in line for part in parts)] or self._ended(),
        )
        return found[0]

    def _ended(self) -> list[str]:
        assert self._process.poll() is None, f"it ended with code {self._process.poll()}: {self.lines[-20:]}"
        return []

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._take(line.rstrip("\n"))

    def _take(self, line: str) -> None:
        """Keeps a line; called from the thread that reads."""
        self._lines.append(line)


def records(lines: list[str]) -> list[dict[str, Any]]:
    """Returns the lines that are JSON objects."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def run(*command: str, env: Mapping[str, str], seconds: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        env=env,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def is_alive(pid: int) -> bool:
    """Returns whether a process is there and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended stays, as a zombie, until its parent waits for it.
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc/self").exists()
