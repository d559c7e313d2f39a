"""One output for the lines of many programs, each line with the name of its source in front.

Nobody who writes here ever waits: lines are kept for a thread that writes them, and the oldest are dropped when the
reader is too slow. A reader that has gone away stops nothing.
It must not know what the sources are.
"""

import os
import select
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

_KEPT_LINES = 10_000
_LONGEST_LINE = 64 * 1024
_FLUSH_SECONDS = 1.0
_LEAST_WIDTH = len("hello-server-1")
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Foreground colours of ECMA-48 that can be read on dark and on light, all but red."""


class ByteStream(Protocol):
    """What can be read bytes from, as from the pipe of a process."""

    async def read(self, n: int) -> bytes:
        """Wait for bytes, at most `n`; none are the end."""


class Output:
    """Lines with the coloured, aligned name of their source in front."""

    def __init__(self, descriptor: int, *, coloured: bool) -> None:
        self._descriptor = descriptor
        self._coloured = coloured
        self._colours: dict[str, int] = {}
        self._width = _LEAST_WIDTH
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: at the end it may hang in a write that nobody reads.
        self._thread = threading.Thread(target=self._write_lines, name="output", daemon=True)
        self._thread.start()

    def write(self, source: str, text: str) -> None:
        """Write a line, sooner or later."""
        line = f"{self._prefix(source)} {text}\n"
        with self._changed:
            self._lines.append(line)
            if len(self._lines) > _KEPT_LINES:
                self._lines.popleft()
                self._dropped += 1
            self._changed.notify()

    def close(self) -> None:
        """Write what is left, unless the reader is too slow for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_FLUSH_SECONDS)

    def _prefix(self, source: str) -> str:
        self._width = max(self._width, len(source))
        prefix = f"{source:<{self._width}} |"
        if not self._coloured:
            return prefix
        colour = self._colours.setdefault(source, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{prefix}\x1b[0m"

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                text = "".join(self._lines)
                if self._dropped:
                    text = f"... {self._dropped} lines are left out here: they came faster than they were read\n{text}"
                self._lines.clear()
                self._dropped = 0
            self._write(text.encode(errors="backslashreplace"))

    def _write(self, rest: bytes) -> None:
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody we share the descriptor with has made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # the reader has gone or the disk is full, and there is nowhere left to say so
                return


async def lines(stream: ByteStream) -> AsyncIterator[str]:
    """Split what a program writes into lines; one that is far too long comes in parts."""
    rest = b""
    while chunk := await stream.read(_LONGEST_LINE):
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            complete, rest = [*complete, rest], b""
        for line in complete:
            yield line.rstrip(b"\r").decode(errors="backslashreplace")
    if rest:
        yield rest.decode(errors="backslashreplace")
