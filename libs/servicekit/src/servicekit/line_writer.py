"""Writes lines to a file descriptor from a thread of its own, so that a caller never waits for whoever reads them.

A slow reader, one that went away (EPIPE) and a full disk (ENOSPC) cost lines, and never stop the program.
"""

import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

MAX_BYTES = 8 * 1024 * 1024
FLUSH_SECONDS = 1.0


class LineWriter:
    """A bounded queue of lines and the daemon thread that writes them, each whole and on a line of its own.

    Args:
        descriptor: Where the lines go.
        notice: Makes the text that tells how many lines are missing before the next one.
        max_bytes: How much may wait; further lines are dropped.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], str], *, max_bytes: int = MAX_BYTES) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._max_bytes = max_bytes
        # Both can be entered again by a destructor that logs while this thread is in `write`.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[tuple[int, bytes] | threading.Event | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._dropped = 0
        self._lost = 0
        self._is_cut = False
        # A daemon, as it may hang in a write that nobody reads when the program ends.
        threading.Thread(target=self._run, name="line writer", daemon=True).start()

    def write(self, text: str) -> None:
        """Queues a line, or drops it if too much is waiting."""
        line = _encode(text)
        with self._lock:
            if self._waiting_bytes and self._waiting_bytes + len(line) > self._max_bytes:
                self._dropped += 1
                return
            self._waiting_bytes += len(line)
            self._queue.put((self._dropped, line))
            self._dropped = 0

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Waits until all lines so far are written, at most so many seconds; returns whether they are."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(seconds)

    def close(self) -> None:
        """Ends the thread once all lines so far are written, without waiting for that."""
        self._queue.put(None)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            dropped, line = entry
            self._lost += dropped
            try:
                self._write_after_notice(line)
            except Exception:  # noqa: BLE001 - whatever a notice raises: without this thread no line would be written again
                self._lost += 1
            with self._lock:
                self._waiting_bytes -= len(line)

    def _write_after_notice(self, line: bytes) -> None:
        if self._lost and self._write(_encode(self._notice(self._lost))):
            self._lost = 0
        if not self._write(line):
            self._lost += 1

    def _write(self, line: bytes) -> bool:
        """Writes a line; returns whether it was written in full.

        It is one write, which no other process that writes to the same pipe can split, up to PIPE_BUF bytes
        (pipe(7)). A line that was cut by an error must not be taken for the beginning of the next.
        """
        rest = b"\n" + line if self._is_cut else line
        while rest:
            try:
                written = self._write_some(rest)
            except OSError:
                return False
            rest = rest[written:]
            self._is_cut = bool(rest)
        return True

    def _write_some(self, data: bytes) -> int:
        """Writes what the descriptor takes, waiting if it takes nothing; returns how much that was."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                # Not select(2), which takes descriptors below 1024 alone.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()


def _encode(text: str) -> bytes:
    return (text + "\n").encode(errors="backslashreplace")
