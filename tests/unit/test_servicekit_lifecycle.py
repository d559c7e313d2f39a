"""From start to exit code: signals and errors."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator

import pytest
import structlog
from structlog.testing import LogCapture

from servicekit import lifecycle
from servicekit.errors import AddressError, ConfigurationError, ServiceError
from servicekit.lifecycle import Shutdown

STUBBORN = """
import asyncio
import sys
import time
from servicekit import lifecycle


async def main(shutdown):
    print("running", flush=True)
    await shutdown.wait()
    print("stopping", flush=True)
    {wait}

sys.exit(lifecycle.run("stubborn", main))
"""


@pytest.fixture
def logged() -> Iterator[list[dict[str, object]]]:
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries  # type: ignore[misc]
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "interactive"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_requests_the_shutdown(
    number: signal.Signals,
    interactive: bool,  # noqa: FBT001 - pytest gives it by name
    logged: list[dict[str, object]],
) -> None:
    seen: list[bool] = []

    async def main(shutdown: Shutdown) -> None:
        seen.append(shutdown.requested)
        os.kill(os.getpid(), number)
        await shutdown.wait()
        seen.extend([shutdown.requested, shutdown.interactive])

    assert lifecycle.run("example", main) == 0
    assert seen == [False, True, interactive]
    assert logged == [{"event": "stopping", "signal": number.name, "log_level": "info"}]


def test_a_main_that_returns_ends_the_program(logged: list[dict[str, object]]) -> None:
    async def main(shutdown: Shutdown) -> None:
        pass

    assert lifecycle.run("example", main) == 0
    assert logged == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServiceError("the mesh is gone; make a new one"), 1),
        (AddressError("cannot listen"), 1),
        (ConfigurationError("PORT=x"), 2),
    ],
)
def test_an_error_for_a_person_is_one_line_and_an_exit_code(
    error: ServiceError, code: int, logged: list[dict[str, object]]
) -> None:
    async def main(shutdown: Shutdown) -> None:
        raise error

    assert lifecycle.run("example", main) == code
    assert logged == [{"event": f"example: {error}", "log_level": "error"}]


def test_another_error_is_not_hidden() -> None:
    async def main(shutdown: Shutdown) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lifecycle.run("example", main)


def test_a_program_may_ask_itself_to_stop() -> None:
    async def main(shutdown: Shutdown) -> None:
        asyncio.get_running_loop().call_soon(shutdown.request)
        await shutdown.wait()
        assert not shutdown.interactive

    assert lifecycle.run("example", main) == 0


async def returns() -> None:
    pass


async def fails() -> None:
    raise ZeroDivisionError("by zero")


async def fails_for_a_reason() -> None:
    raise ConfigurationError("PORT=x")


async def is_cancelled() -> None:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("task", "code", "event"),
    [
        (returns, 1, "example: the task 'discovery' returned, but should run until the shutdown"),
        (is_cancelled, 1, "example: the task 'discovery' was cancelled, but should run until the shutdown"),
        (fails, 1, "example: the task 'discovery' failed: ZeroDivisionError('by zero')"),
        (fails_for_a_reason, 2, "example: PORT=x"),
    ],
)
def test_an_endless_task_that_ends_is_named_and_ends_the_program(
    task: Callable[[], Coroutine[None, None, None]], code: int, event: str, logged: list[dict[str, object]]
) -> None:
    ended = []

    async def runs_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other task")

    async def main(shutdown: Shutdown) -> None:
        await lifecycle.run_until_shutdown(shutdown, {"others": runs_on(), "discovery": task()})

    assert lifecycle.run("example", main) == code
    assert [line["event"] for line in logged] == [event]
    assert ended == ["the other task"]


def test_the_line_of_a_failed_task_has_its_traceback(logged: list[dict[str, object]]) -> None:
    async def main(shutdown: Shutdown) -> None:
        await lifecycle.run_until_shutdown(shutdown, {"discovery": fails()})

    lifecycle.run("example", main)
    assert isinstance(logged[0]["exc_info"], ZeroDivisionError)


def test_endless_tasks_are_cancelled_at_the_shutdown(logged: list[dict[str, object]]) -> None:
    ended = []

    async def runs_on(shutdown: Shutdown) -> None:
        try:
            shutdown.request()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("discovery")

    async def main(shutdown: Shutdown) -> None:
        await lifecycle.run_until_shutdown(shutdown, {"discovery": runs_on(shutdown)})
        assert ended == ["discovery"]

    assert lifecycle.run("example", main) == 0
    assert logged == []


@pytest.mark.parametrize(
    "wait", ["await asyncio.sleep(3600)", "time.sleep(3600)"], ids=["waiting", "hanging"]
)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(wait: str, second: signal.Signals) -> None:
    command = [sys.executable, "-c", STUBBORN.format(wait=wait)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "running\n"
        program.send_signal(signal.SIGTERM)
        while program.stdout.readline() != "stopping\n":
            assert program.poll() is None
        program.send_signal(second)
        assert program.wait(30) == 128 + second
