"""One call of grpc's server, driven by what happens to it rather than by a thread or a task of its own.

A control plane has thousands of calls open that say something now and then. grpc's public ways to serve them cost two
threads for each, or nearly twice the CPU: asyncio is woken through a socket, a future and a coroutine for every message
(docs/benchmarks.md has the figures). Below both is one queue of completed operations, and one thread of grpc's own
that calls whoever waits for each. Here the operations of a call are started on that queue directly.

This module is all that knows how: a method with ``experimental_non_blocking`` is given a function to end its call with;
``_rpc_event.call`` of its context starts operations of ``cygrpc``; when one has completed, grpc's thread calls what was
given with it. Another ``experimental_thread_pool`` keeps new calls apart from methods that block. It knows nothing of
xDS.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]

log = structlog.get_logger()

_NO_FLAGS = 0
_GO_ON: tuple[None, tuple[()]] = (None, ())
"""What grpc's thread expects of whoever takes an event: no call is over, nobody else is to be told."""


class Handler(Protocol):
    """Whoever handles a call. Told by grpc's threads, of one event after another; must not block."""

    def received(self, message: bytes) -> None:
        """Takes a message of the client."""

    def finished(self) -> None:
        """The client has nothing more to say."""

    def written(self) -> None:
        """What was written last is on its way: the next message may be written."""

    def ended(self) -> None:
        """The call is over, however that came; nothing more is told."""


class Call:
    """A bidirectional call, as grpc gives it to a method.

    Args:
        context: The method's second argument.
        respond: Its third.

    Attributes:
        peer: The client's address.
    """

    def __init__(self, context: grpc.ServicerContext, respond: Callable[[None], None]) -> None:
        self._context = context
        self._respond = respond
        self._core: Any = context._rpc_event.call  # type: ignore[attr-defined] # noqa: SLF001
        self._handler: Handler | None = None
        self._end = threading.Lock()
        self.peer = context.peer()

    @property
    def is_ending(self) -> bool:
        """Whether it was ended from here."""
        return self._end.locked()

    def serve(self, handler: Handler) -> None:
        """Tells the handler of everything from now on."""
        self._handler = handler
        if self._context.add_callback(self._over):
            self._context.send_initial_metadata(())
            self._read()
        else:
            self._over()

    def write(self, message: bytes) -> None:
        """Writes a message. Only one at a time, and none after the end: grpc would drop it without a word."""
        self._core.start_server_batch((cygrpc.SendMessageOperation(message, _NO_FLAGS),), self._on_written)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status, after what was written; the first end counts."""
        if self._end.acquire(blocking=False):
            self._context.set_code(code)
            self._context.set_details(details)
            self._respond(None)

    def cancel(self) -> None:
        """Ends the call at once, with what is being written."""
        self._end.acquire(blocking=False)
        self._context.cancel()

    def guard(self, step: Callable[..., None], *args: bytes) -> None:
        """Takes a step of the handler's. An error in it ends this call, and not the thread that serves them all."""
        try:
            step(*args)
        except Exception:
            log.exception("a stream ends because of an error in the server", peer=self.peer)
            self.end(grpc.StatusCode.INTERNAL, "an error in the server; its log says more")

    def _read(self) -> None:
        self._core.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_read)

    def _on_read(self, event: Any) -> tuple[None, tuple[()]]:
        message = event.batch_operations[0].message()
        handler = self._handler
        if handler is not None and message is None:
            self.guard(handler.finished)
        elif handler is not None and not self.is_ending:
            self.guard(handler.received, message)
            self.guard(self._read)
        return _GO_ON

    def _on_written(self, event: Any) -> tuple[None, tuple[()]]:
        handler = self._handler
        if handler is not None and event.success:
            self.guard(handler.written)
        return _GO_ON

    def _over(self) -> None:
        """Parts from the handler, so that neither waits for the garbage collector."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.ended()


def method_handler(
    opened: Callable[[Call], None], threads: ThreadPoolExecutor
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """A handler for calls whose messages are bytes.

    Args:
        opened: Takes each new call.
        threads: Where that happens. Not those of methods that block, which would keep new calls waiting.
    """

    def behavior(_: object, context: grpc.ServicerContext, respond: Callable[[None], None]) -> None:
        opened(Call(context, respond))

    behavior.experimental_non_blocking = True  # type: ignore[attr-defined]
    behavior.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return grpc.stream_stream_rpc_method_handler(behavior)
