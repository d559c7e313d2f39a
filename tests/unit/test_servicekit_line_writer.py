"""Lines to a descriptor whose reader may be slow or gone: none is cut, none is glued, and what is missing is counted."""

import contextlib
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicekit.line_writer import LineWriter
from tests.support.waiting import wait_until

FILLING = b"." * 999 + b"\n"


class Pipe:
    """A named pipe, whose reader can go away and come back."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY)

    def fill(self) -> None:
        """Writes lines into the pipe until a write to it blocks."""
        filler = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, FILLING)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n")
        os.close(filler)

    def read(self) -> list[str]:
        """Returns the lines that wait in the pipe, without the filling."""
        data = b""
        while more := self.read_some():
            data += more
        return [line.decode() for line in data.split(b"\n") if line.strip(b".")]

    def read_some(self) -> bytes:
        """Returns what waits in the pipe, at most a page of it."""
        try:
            return os.read(self.reader, 1 << 12)
        except BlockingIOError:
            return b""

    def close_reader(self) -> None:
        os.close(self.reader)

    def reopen_reader(self) -> None:
        self.reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        """Closes both ends; a thread that is stuck in a write goes on."""
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    pipe.close()


def line_writer(pipe: Pipe, max_bytes: int = 1 << 20) -> LineWriter:
    return LineWriter(pipe.writer, "{} lines are missing".format, max_bytes=max_bytes)


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    writer = line_writer(pipe)
    for number in range(100):
        writer.write(f"line {number}")
    assert writer.flush(30)
    assert pipe.read() == [f"line {number}" for number in range(100)]


def test_a_flush_does_not_wait_for_ever(pipe: Pipe) -> None:
    pipe.fill()
    writer = line_writer(pipe)
    writer.write("a line")
    assert not writer.flush(0.01)


def test_lines_that_nobody_reads_are_dropped_and_counted_before_the_next(pipe: Pipe) -> None:
    pipe.fill()
    writer = line_writer(pipe, max_bytes=100)
    for number in range(12):
        writer.write(f"line {number:014}")  # 20 bytes
    seen = pipe.read()
    assert writer.flush(30)
    seen += pipe.read()
    assert len(seen) == 5
    for number in (12, 13):
        writer.write(f"line {number:014}")
    assert writer.flush(30)
    assert seen + pipe.read() == [
        *(f"line {number:014}" for number in range(5)),
        "7 lines are missing",
        *(f"line {number:014}" for number in (12, 13)),
    ]


def test_a_line_that_is_longer_than_all_that_may_wait_is_written_all_the_same(pipe: Pipe) -> None:
    writer = line_writer(pipe, max_bytes=10)
    writer.write("x" * 100)
    assert writer.flush(30)
    assert pipe.read() == ["x" * 100]


def test_lines_while_the_reader_is_gone_are_counted_when_it_comes_back(pipe: Pipe) -> None:
    writer = line_writer(pipe)
    pipe.close_reader()
    for number in range(3):
        writer.write(f"line {number}")
    assert writer.flush(30)
    pipe.reopen_reader()
    writer.write("the next")
    assert writer.flush(30)
    assert pipe.read() == ["3 lines are missing", "the next"]


def test_a_line_that_was_cut_is_not_glued_to_the_next(pipe: Pipe) -> None:
    writer = line_writer(pipe, max_bytes=1 << 22)
    writer.write("x" * (1 << 20))  # more than a pipe takes
    wait_until("the beginning of the line", pipe.read_some)
    pipe.close_reader()
    assert writer.flush(30)
    pipe.reopen_reader()
    pipe.read_some()  # makes room for short lines behind what is left of the long one
    writer.write("the next")
    assert writer.flush(30)
    begun, *others = pipe.read()
    assert set(begun) == {"x"}
    assert others == ["1 lines are missing", "the next"]


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = line_writer(pipe)
    for number in range(5_000):
        writer.write(f"line {number:040}")
    seen: list[str] = []
    rest = ""

    def look() -> bool:
        nonlocal rest
        *lines, rest = (rest + pipe.read_some().decode()).split("\n")
        seen.extend(lines)
        return len(seen) == 5_000

    wait_until("all lines", look)
    assert seen == [f"line {number:040}" for number in range(5_000)]


def test_a_high_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    high = fcntl.fcntl(pipe.writer, fcntl.F_DUPFD, 1024)
    try:
        os.set_blocking(high, False)
        pipe.fill()
        writer = LineWriter(high, "{} lines are missing".format)
        writer.write("a line")
        seen: list[str] = []

        def look() -> bool:
            seen.extend(pipe.read())
            return bool(seen)

        wait_until("the line", look)
        assert seen == ["a line"]
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_notice_that_fails_does_not_end_the_thread(pipe: Pipe) -> None:
    def notice(lines: int) -> str:
        if lines == 1:
            raise ZeroDivisionError
        return f"{lines} lines are missing"

    writer = LineWriter(pipe.writer, notice)
    pipe.close_reader()
    writer.write("lost")
    assert writer.flush(30)
    pipe.reopen_reader()
    for line in ("lost by the notice", "the next"):
        writer.write(line)
    assert writer.flush(30)
    assert pipe.read() == ["2 lines are missing", "the next"]
