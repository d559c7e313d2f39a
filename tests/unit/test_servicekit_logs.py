"""The log: its lines, and that no reader of it can stop a program."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from servicekit import logs

PROGRAM = """
import sys
import structlog
from servicekit import logs

logs.configure("json", "INFO")
log = structlog.get_logger()
for number in range(100):
    log.info("a line", number=number)
sys.stderr.write("alive")
"""

UNREAD = """
import sys
import structlog
from servicekit import logs

logs.configure("json", "INFO")
log = structlog.get_logger()
for number in range(10_000):
    log.info("more than a pipe holds", number=number)
print("alive", file=sys.stderr, flush=True)
log.info(sys.stdin.readline())
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers, logging.root.level
    yield
    for handler in logging.root.handlers:
        if handler not in handlers:
            handler.close()
    logging.root.handlers = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def logged(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in written(capfd).splitlines()]


def written(capfd: pytest.CaptureFixture[str]) -> str:
    for handler in logging.root.handlers:
        handler.flush()
    return capfd.readouterr().out


def test_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    structlog.get_logger().info("a replica appeared", name="hello-server-ä", ports=[1, 2])
    (line,) = logged(capfd)
    assert list(line) == ["timestamp", "level", "event", "name", "ports"]
    assert line["level"] == "info"
    assert line["event"] == "a replica appeared"
    assert line["name"] == "hello-server-ä"
    age = datetime.now(UTC) - datetime.fromisoformat(str(line["timestamp"]))
    assert age < timedelta(minutes=1)


def test_one_event_is_one_line_whatever_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    structlog.get_logger().info("100% of\nit", value="\udce4", thing=object())
    (line,) = logged(capfd)
    assert line["event"] == "100% of\nit"


def test_records_of_the_standard_library_come_out_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    (line,) = logged(capfd)
    assert (line["level"], line["event"], line["logger"]) == ("warning", "slow callback", "asyncio")


def test_chatty_libraries_only_warn_and_never_below_the_level(capfd: pytest.CaptureFixture[str]) -> None:
    for level, events in (("DEBUG", ["w"]), ("ERROR", [])):
        logs.configure("json", level)
        logging.getLogger("urllib3.connectionpool").debug("d")
        logging.getLogger("urllib3.connectionpool").warning("w")
        assert [line["event"] for line in logged(capfd)] == events


def test_an_exception_is_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    try:
        int("no number")
    except ValueError:
        structlog.get_logger().exception("it failed")
    (line,) = logged(capfd)
    assert "ValueError: invalid literal" in str(line["exception"])


@pytest.mark.parametrize(
    ("level", "events"), [("DEBUG", ["d", "i", "e"]), ("INFO", ["i", "e"]), ("ERROR", ["e"])]
)
def test_the_level(level: str, events: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", level)
    log = structlog.get_logger()
    log.debug("d")
    log.info("i")
    log.error("e")
    assert [line["event"] for line in logged(capfd)] == events


def test_text_has_no_colours_unless_on_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    structlog.get_logger().info("serving", port=50051, hostname="a")
    assert written(capfd).endswith("[info     ] serving port=50051 hostname=a\n")


def test_auto_is_json_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto", "INFO")
    structlog.get_logger().info("serving")
    assert len(logged(capfd)) == 1


def test_a_reader_that_went_away_does_not_stop_the_program() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"alive")


def test_a_reader_that_does_not_read_does_not_stop_the_program_and_hears_of_it_later() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stderr
        assert program.stderr.readline() == b"alive\n"
        os.set_blocking(program.stdout.fileno(), False)
        while program.stdout.read(1 << 20):
            pass
        os.set_blocking(program.stdout.fileno(), True)
        program.stdin.write(b"the reader reads again\n")
        assert b"the reader reads again" in program.stdout.read()
        assert program.wait() == 0


def test_a_reader_that_never_reads_does_not_keep_the_program_from_ending() -> None:
    command = [sys.executable, "-c", UNREAD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdin
        program.stdin.close()
        assert program.wait() == 0


@pytest.mark.parametrize(
    ("ending", "code"), [("", 0), ("sys.exit(3)", 3), ("raise ZeroDivisionError", 1)], ids=repr
)
def test_no_line_is_lost_when_the_program_ends(ending: str, code: int) -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM + ending], capture_output=True, check=False)
    assert result.returncode == code
    assert [json.loads(line)["number"] for line in result.stdout.splitlines()] == list(range(100))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")  # noqa: PTH110
def test_a_full_disk_does_not_stop_the_program() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (result.returncode, result.stderr) == (0, b"alive")


def test_a_closed_stdout_does_not_stop_the_program() -> None:
    command = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, PROGRAM]
    result = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (0, b"alive")
