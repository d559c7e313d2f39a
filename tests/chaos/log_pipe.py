"""A pipe for the logs of programs, whose reader can exit or stop reading."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self


class LogPipe:
    """A named pipe, so that a reader can open it again.

    Attributes:
        writer: The end that programs write to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self._read = b""
        self._reader: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_reader()
        os.close(self.writer)

    def close_reader(self) -> None:
        """Closes the reader's end: writers get EPIPE."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def stop_reading(self) -> None:
        """Fills the pipe and does not read: writers block."""
        # Opens it again, as O_NONBLOCK would apply to the writer's end of the programs too.
        stuffing = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(stuffing, b"\n")
        os.close(stuffing)

    @contextlib.contextmanager
    def being_read(self) -> Iterator[None]:
        """Reads all the time, as the pipe is smaller than what programs write at their end."""
        stop = threading.Event()

        def read() -> None:
            while not stop.wait(0.01):
                self.lines()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()

    def lines(self) -> list[str]:
        """Reads, from a new reader's end if necessary, and returns all lines so far."""
        if self._reader is None:
            self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._reader, 1 << 20):
                self._read += more
        return self._read.decode().splitlines()
