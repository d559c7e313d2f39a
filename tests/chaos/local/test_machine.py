"""Faults of the machine: a full disk, a log without a reader, a clock that is set."""

import importlib.metadata
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.chaos.log_pipe import LogPipe
from tests.chaos.mesh import GRACE, HOWDY_TARGET, TARGET, Mesh, age, bootstrap, metric
from tests.support.running import Running, records
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

RECOVERED = "a new pod ready → each client answered by it, meanwhile"
GREETINGS = ("Hello", "Howdy")


@contextmanager
def five_programs(mesh: Mesh, **settings: str) -> Iterator[tuple[XdsServer, Running, Running]]:
    """Runs all five programs: the servers belong to the mesh, the others are yielded."""
    mesh.hello.scale(2)
    mesh.howdy.scale(1)
    server = mesh.start_xds_server(LOG_LEVEL="DEBUG", **settings)
    with ExitStack() as stack:
        hello, howdy = (
            stack.enter_context(mesh.start_client(program, bootstrap(server.address), target))
            for program, target in [("hello-client", TARGET), ("howdy-client", HOWDY_TARGET)]
        )
        yield server, hello, howdy


def end(*programs: Running) -> None:
    for program in programs:
        program.send(signal.SIGTERM)
    assert [program.wait(GRACE) for program in programs] == [0] * len(programs)


def a_pod_joins(mesh: Mesh, load: Load) -> float:
    """Adds a pod and returns the seconds until each client had a reply from it."""
    mesh.hello.scale(len(mesh.hello.pods) + 1)
    ready = time.monotonic()
    return load.wait_for(mesh.hello.names) - ready


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_the_disk_is_full(mesh: Mesh, scenario) -> None:
    mesh.machine.log = os.open("/dev/full", os.O_WRONLY)
    with (
        five_programs(mesh) as (server, hello, howdy),
        mesh.load(server.address) as load,
        scenario("the disk is full: no log of any program can be written", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        before = [writes(client) for client in (hello, howdy)]
        run.now("a pod joins")
        run.recovered(a_pod_joins(mesh, load), RECOVERED)
        for client, tried in zip((hello, howdy), before, strict=True):
            wait_until("attempts to log replies", lambda: writes(client) > tried + 100)
        run.now("SIGTERM of all programs")
        end(hello, howdy, server)
        mesh.howdy.close()
    os.close(mesh.machine.log)


def writes(program: Running) -> int:
    """Returns the number of write system calls of a program: syscw of proc_pid_io(5)."""
    [count] = [
        line.split()[1]
        for line in Path(f"/proc/{program.pid}/io").read_text().splitlines()
        if line.startswith("syscw")
    ]
    return int(count)


@pytest.mark.parametrize(
    ("what", "begin"), [("exits", LogPipe.close_reader), ("stops reading", LogPipe.stop_reading)]
)
def test_the_logs_reader(
    mesh: Mesh, scenario, tmp_path: Path, what: str, begin: Callable[[LogPipe], None]
) -> None:
    with LogPipe(tmp_path / "log") as log, ExitStack() as stack:
        mesh.machine.log = log.writer
        server, hello, howdy = stack.enter_context(five_programs(mesh))
        load = stack.enter_context(mesh.load(server.address))
        run = stack.enter_context(scenario(f"the reader of all logs {what}", load))
        load.wait_for(mesh.hello.names)
        for greeting in GREETINGS:
            wait_until(f"{greeting} in the log", lambda: replies(log, greeting))
        before = {greeting: replies(log, greeting) for greeting in GREETINGS}
        begin(log)
        unread = datetime.now(UTC)
        run.now(f"the reader of the log {what}; a pod joins")
        run.recovered(a_pod_joins(mesh, load), RECOVERED)
        load.go_on_for(5)

        run.now("the log is read again")
        read_again = datetime.now(UTC)
        for greeting in GREETINGS:
            wait_until(f"{greeting} again", lambda: replies(log, greeting) > before[greeting])
        run.now("SIGTERM of all programs")
        with log.being_read():
            end(hello, howdy, server)
        totals = [record for record in records(log.lines()) if record.get("period") == "in all"]
        for greeting in GREETINGS:
            [total] = [total for total in totals if greeting.lower() in str(total["hosts"])]
            assert total["failed"] == 0
            missed = total["replies"] - replies(log, greeting)
            if what == "exits":
                assert missed > 100, "the client has called while its log was not read"
            else:
                # The lines waited for the reader.
                assert missed == 0
                waited = [
                    record
                    for record in records(log.lines())
                    if str(record.get("message", "")).startswith(greeting)
                    and unread < datetime.fromisoformat(record["timestamp"]) < read_again
                ]
                assert len(waited) > 100, "the client has called while its log was not read"
        mesh.howdy.close()
        mesh.hello.scale(0)
        log.lines()


def replies(log: LogPipe, greeting: str) -> int:
    return sum(f'"message":"{greeting}' in line.replace(" ", "") for line in log.lines())


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="libfaketime is only packaged for Linux x86_64",
)
def test_the_clock_is_set(mesh: Mesh, scenario, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    set_clock(clock, timedelta())
    [library] = [
        str(file.locate())
        for file in importlib.metadata.files("libfaketime") or ()
        if file.name == "libfaketime.so.1"
    ]
    # Only the time of day is set: the monotonic clock cannot be, see clock_gettime(2).
    mesh.machine.environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with (
        five_programs(mesh, POLL_INTERVAL="1") as (server, hello, howdy),
        mesh.load(server.address) as load,
        scenario("the clock is set a day ahead, then two back, for all programs", load) as run,
    ):
        load.wait_for(mesh.hello.names)
        offsets = timedelta(days=1), timedelta(days=-1)
        for offset in offsets:
            run.now(f"the clock is set to {offset.days:+} day; a pod joins")
            set_clock(clock, offset)
            run.recovered(a_pod_joins(mesh, load), RECOVERED)
            for program in (server, hello, howdy):
                wait_until(
                    "a line at the new time", lambda: abs(ahead(program) - offset) < timedelta(hours=1)
                )
            polls = metric(server, "discovery_lists_total")
            wait_until("polls to go on", lambda: metric(server, "discovery_lists_total") >= polls + 4)
            assert 0 <= age(server) < 60
        run.now("SIGTERM of all programs")
        end(hello, howdy, server)
        for client in (hello, howdy):
            # grpc keeps the deadline of a call as a time of day: a call in flight at the moment itself may exceed it.
            failures = [record for record in client.records if record["event"] == "call failed"]
            assert {record["status"] for record in failures} <= {"DEADLINE_EXCEEDED"}
            assert client.records[-1]["failed"] <= len(offsets), (
                "one call for each time that the clock is set"
            )


def set_clock(file: Path, offset: timedelta) -> None:
    new = file.with_suffix(".new")
    new.write_text(f"{offset.total_seconds():+.0f}\n")
    new.rename(file)


def ahead(program: Running) -> timedelta:
    """Returns how far the time of a program's last log line is ahead of the test's clock."""
    return datetime.fromisoformat(program.records[-1]["timestamp"]) - datetime.now(UTC)
