"""From start to exit code: the event loop, the signals that request a shutdown, and the errors that end a program."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import FrameType
from typing import Any

import structlog

from servicekit import early
from servicekit.errors import ServiceError, TaskEndedError

log = structlog.get_logger()


class Shutdown:
    """A shutdown request, set by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._interactive = False

    @property
    def requested(self) -> bool:
        """Whether the program should stop."""
        return self._event.is_set()

    @property
    def interactive(self) -> bool:
        """Whether a person is waiting (Ctrl-C), so that the drain delay is left out."""
        return self._interactive

    def request(self, *, interactive: bool = False) -> None:
        """Asks the program to stop."""
        self._interactive = interactive
        self._event.set()

    async def wait(self) -> None:
        """Waits until the shutdown is requested."""
        await self._event.wait()


def run(program: str, main: Callable[[Shutdown], Awaitable[None]]) -> int:
    """Runs `main` until it returns, which it does soon after SIGTERM or SIGINT; returns the exit code.

    After a signal that `early` has remembered, `main` does not run at all.
    """
    try:
        asyncio.run(_with_signals(main))
    except TaskEndedError as error:
        log.error("%s: %s", program, error, exc_info=error.__cause__)  # noqa: TRY400 - its traceback alone is of use
        return error.exit_code
    except ServiceError as error:
        log.error("%s: %s", program, error)  # noqa: TRY400 - the line is for a person, not a traceback
        return error.exit_code
    return 0


async def run_until_shutdown(shutdown: Shutdown, endless: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Runs tasks that never end by themselves, by their names, until the shutdown is requested; then cancels them.

    Raises:
        TaskEndedError: A task returned, was cancelled or failed before.
        ServiceError: A task raised it.
    """
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in endless.items()]
    stopping = asyncio.create_task(shutdown.wait(), name="shutdown")
    try:
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                raise _error(task)
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


def _error(ended: asyncio.Task[None]) -> ServiceError:
    name = f"the task {ended.get_name()!r}"
    if ended.cancelled():
        return TaskEndedError(f"{name} was cancelled, but should run until the shutdown")
    cause = ended.exception()
    if cause is None:
        return TaskEndedError(f"{name} returned, but should run until the shutdown")
    if isinstance(cause, ServiceError):
        return cause
    error = TaskEndedError(f"{name} failed: {cause!r}")
    error.__cause__ = cause
    return error


async def _with_signals(main: Callable[[Shutdown], Awaitable[None]]) -> None:
    """Lets the first SIGTERM or SIGINT request the shutdown, and any later one end the process at once.

    Both need handlers of their own: the kernel ignores signals without one for PID 1 of a container
    (pid_namespaces(7)). The second is not left to the event loop, which may hang.
    """
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, _end_at_once)
        log.info("stopping", signal=number.name)
        shutdown.request(interactive=number == signal.SIGINT)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, first, each)
    if number := early.remembered_signal():
        first(number)
        return  # nothing has been started, so nothing has to drain
    await main(shutdown)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
