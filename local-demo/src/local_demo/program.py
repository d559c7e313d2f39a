"""One program, kept running as kubelet keeps a container: restarted with a growing pause when it ends by itself."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_demo import health, leash, output
from local_demo.environment import Environment
from local_demo.output import Output
from local_demo.state import State, locked
from servicekit.addresses import Address
from servicekit.errors import ServiceError

_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started.

    Attributes:
        command: The program's file and its arguments.
        environment: All of its environment.
        address: Where clients reach it; None for a client.
        health: Where its gRPC health service is to be asked; None if it has none and is ready as soon as it runs.
        certificate: The folder of the certificate to ask with; None: without encryption.
    """

    command: Sequence[Path | str]
    environment: Environment
    address: Address | None = None
    health: Address | None = None
    certificate: Path | None = None


class Program:
    """A program that runs until `end` is called.

    Attributes:
        name: Unique among the programs.
        launch: How it was started last.
        ready: Whether it runs and says that it serves.
    """

    def __init__(
        self,
        name: str,
        next_launch: Callable[[], Launch],
        *,
        state: State,
        output: Output,
        on_change: Callable[["Program"], None],
    ) -> None:
        self.name = name
        self.launch: Launch | None = None
        self.ready = False
        self._next_launch = next_launch
        self._record = state.processes / name
        self._output = output
        self._on_change = on_change
        self._process: Process | None = None
        self._check: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Runs the program and restarts it whenever it ends by itself. When cancelled, kills it."""
        clock = asyncio.get_running_loop().time
        failures = 0
        try:
            while not self._ending.is_set():
                started = clock()
                code = await self._run_once()
                if self._ending.is_set():
                    return
                failures = 1 if clock() - started > _STEADY_SECONDS else failures + 1
                seconds = pause(failures)
                self._say(
                    f"{_described(code)}; starting again {f'in {seconds:.0f} s' if seconds else 'at once'}"
                )
                await _within(seconds, self._ending)
        finally:
            self._ended.set()

    async def end(self, signal_number: signal.Signals, *, grace: float) -> None:
        """Ends the program with a signal, or by force after `grace` seconds; returns when it is gone."""
        self._ending.set()
        if self._check is not None:
            # From now on it counts as it was last.
            self._check.cancel()
        self._send(signal_number)
        if not await _within(grace, self._ended):
            self._say(f"has not ended {grace:.0f} s after {signal_number.name}: killed")
            self._send(signal.SIGKILL)
            await self._ended.wait()

    async def _run_once(self) -> int:
        self.launch = self._next_launch()
        process = self._process = await self._start(self.launch)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._show(process))
                self._check = group.create_task(self._follow_health(self.launch))
                if self._ending.is_set():  # `end` was called while it was being started
                    process.kill()
                code = await process.wait()
                self._set_ready(ready=False)
                self._check.cancel()
                return code
        finally:
            self.ready = False
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._record.unlink(missing_ok=True)

    async def _start(self, launch: Launch) -> Process:
        # If somebody has removed it, the supervisor is about to end everything in order.
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._record) as descriptor:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(descriptor)),
                *launch.command,
                env=launch.environment,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                # Ctrl-C at the terminal reaches the whole foreground process group: the supervisor alone must get it.
                start_new_session=True,
                pass_fds=[descriptor],
            )

    async def _show(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        async for line in output.lines(process.stdout):
            self._output.write(self.name, line)

    async def _follow_health(self, launch: Launch) -> None:
        if launch.health is None:
            self._set_ready(ready=True)
        else:
            async for ready in health.follow(launch.health, launch.certificate):
                self._set_ready(ready=ready)

    def _set_ready(self, *, ready: bool) -> None:
        if ready != self.ready and not self._ending.is_set():
            self.ready = ready
            self._on_change(self)

    def _send(self, signal_number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal_number)

    def _say(self, text: str) -> None:
        self._output.write("local", f"{self.name} {text}")


def find(name: str) -> Path:
    """Returns the file of an installed program, beside the Python that runs this one.

    Raises:
        ServiceError: It is not there.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ServiceError(f"{path} is not there: install the programs with `./taskw setup`")
    return path


def pause(failures: int) -> float:
    """Returns the seconds before a program is restarted after so many failures in a row: 0, 1, 2, 4, ... 30."""
    return 0.0 if failures < 2 else min(_LONGEST_PAUSE, 2.0 ** min(failures - 2, 10))  # noqa: PLR2004


def _described(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Waits for an event, at most so many seconds; returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
