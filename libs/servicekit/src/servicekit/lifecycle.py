"""From start to exit code: the event loop, the signals that stop it, and errors a person has to mend.

It must not know how a program drains or stops; it only tells it when.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import structlog

from servicekit.errors import ServiceError

log = structlog.get_logger()


class Stop:
    """The wish to stop, which a signal fulfils."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._interactive = False

    @property
    def requested(self) -> bool:
        """Whether the program should stop."""
        return self._event.is_set()

    @property
    def interactive(self) -> bool:
        """Whether a person is waiting (Ctrl-C), so that no drain delay is due."""
        return self._interactive

    def request(self, *, interactive: bool = False) -> None:
        """Ask the program to stop."""
        self._interactive = interactive
        self._event.set()

    async def wait(self) -> None:
        """Wait until the program should stop."""
        await self._event.wait()


def run(program: str, main: Callable[[Stop], Awaitable[None]]) -> int:
    """Run `main` until it returns, which it does soon after SIGTERM or SIGINT; return the exit code."""
    try:
        asyncio.run(_with_signals(main))
    except ServiceError as error:
        log.error("%s: %s", program, error)  # noqa: TRY400 - the line is for a person, not a traceback
        return error.exit_code
    return 0


async def _with_signals(main: Callable[[Stop], Awaitable[None]]) -> None:
    """Let the first SIGTERM or SIGINT request a stop and any later one end the process at once.

    Both need handlers of their own: the kernel ignores signals without one for PID 1 of a container
    (pid_namespaces(7)). The second is not left to the event loop, which may hang.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, _end_at_once)
        log.info("stopping", signal=number.name)
        stop.request(interactive=number == signal.SIGINT)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, first, each)
    await main(stop)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
