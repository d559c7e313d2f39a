"""One output for the lines of many programs, each line with the name of its source in front."""

from collections.abc import AsyncIterator
from typing import Protocol

from servicekit.line_writer import LineWriter

_MAX_LINE = 64 * 1024
_MIN_WIDTH = len("hello-server-1")
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Foreground colours of ECMA-48 that can be read on dark and on light, all but red."""


class ByteStream(Protocol):
    """What bytes can be read from, as from the pipe of a process."""

    async def read(self, n: int) -> bytes:
        """Waits for bytes and returns at most `n`, none at the end."""


class Output:
    """Lines with the coloured, aligned name of their source in front; whoever writes one never waits."""

    def __init__(self, descriptor: int, *, coloured: bool) -> None:
        self._coloured = coloured
        self._colours: dict[str, int] = {}
        self._width = _MIN_WIDTH
        self._writer = LineWriter(
            descriptor, "... {} lines are missing here: they came faster than they were read".format
        )

    def write(self, source: str, text: str) -> None:
        """Queues a line for the thread that writes."""
        self._writer.write(f"{self._prefix(source)} {text}")

    def close(self) -> None:
        """Waits until the lines so far are written, unless the reader is too slow for that."""
        self._writer.flush()

    def _prefix(self, source: str) -> str:
        self._width = max(self._width, len(source))
        prefix = f"{source:<{self._width}} |"
        if not self._coloured:
            return prefix
        colour = self._colours.setdefault(source, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{prefix}\x1b[0m"


async def lines(stream: ByteStream) -> AsyncIterator[str]:
    """Splits what a program writes into lines; one that is far too long comes in parts."""
    rest = b""
    while chunk := await stream.read(_MAX_LINE):
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            complete, rest = [*complete, rest], b""
        for line in complete:
            yield line.rstrip(b"\r").decode(errors="backslashreplace")
    if rest:
        yield rest.decode(errors="backslashreplace")
