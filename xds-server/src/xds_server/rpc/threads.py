"""Calls on grpc's public API alone: two threads for each.

The way that grpc documents: a method is a generator of responses. grpc runs it in a thread of the server's pool, sends
what it yields and asks for the next response when that was sent. So the generator here takes messages from a queue,
the call's *outbox*, that ``write`` fills; being asked for the next one is ``Handler.written``. The end of the queue is
the end of the call, with the code and details of the context. Requests are an iterator that blocks; a second thread
reads it.

Three threads have events for a handler then: the one that reads, the one that writes, and grpc's own, which runs the
callback at the end. A lock of the call makes one event follow the other.

It costs several times the CPU of ``events`` (docs/benchmarks.md), and depends on nothing that grpc may change.
"""

import queue
import threading
from collections.abc import Callable, Iterator

import grpc

from xds_server.rpc.base import BaseCall
from xds_server.rpc.call import Call

_SPARE = 8
"""Threads for calls over the bound, which are opened only to be refused."""


class ThreadCall(BaseCall):
    """A call with a thread for each direction.

    Args:
        requests: The method's first argument.
        context: Its second.
    """

    def __init__(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> None:
        super().__init__(context)
        self._requests = requests
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        # However the call ends, the thread that waits for the next message has to.
        if not context.add_callback(self._finish):
            self._finish()

    def write(self, message: bytes) -> None:
        """Writes a message."""
        self._outbox.put(message)

    def responses(self) -> Iterator[bytes]:
        """Yields what is written until the end. Runs in a thread of the server's pool."""
        while (message := self._outbox.get()) is not None:
            yield message
            self.guard(self._tell_written)

    def _start(self) -> None:
        threading.Thread(target=self._read, name="reads a call", daemon=True).start()

    def _finish(self) -> None:
        self._outbox.put(None)

    def _read(self) -> None:
        try:
            for message in self._requests:
                self.guard(self._tell_received, message)
        except grpc.RpcError as error:
            # The call is over: the callback tells the handler. grpc keeps the error, whose traceback would keep the
            # call until the garbage collector finds the cycle.
            error.__traceback__ = None
            return
        self.guard(self._tell_finished)

    def _tell_received(self, message: bytes) -> None:
        with self._turn:
            if self._handler is not None and not self.is_ending:
                self._handler.received(message)

    def _tell_finished(self) -> None:
        with self._turn:
            if self._handler is not None and not self.is_ending:
                self._handler.finished()

    def _tell_written(self) -> None:
        with self._turn:
            if self._handler is not None:
                self._handler.written()

    def _over(self) -> None:
        with self._turn:
            super()._over()


class ThreadTransport:
    """Serves calls with two threads for each.

    Args:
        calls: How many may be open at once. Further ones wait until a thread of the server's pool is free, but for
            a few that can still be opened, to be refused.
    """

    name = "threads"

    def __init__(self, calls: int) -> None:
        self.server_threads = calls + _SPARE
        self._opening = threading.Lock()

    def method(self, opened: Callable[[Call], None]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Returns a method handler that passes each new call to ``opened``, one call at a time."""

        def behavior(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = ThreadCall(requests, context)
            with self._opening:
                call.guard(opened, call)
            return call.responses()

        return grpc.stream_stream_rpc_method_handler(behavior)

    def close(self) -> None:
        """Does nothing: the threads belong to the calls and to the server's pool."""
