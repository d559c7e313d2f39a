"""One call of grpc's server, driven by what happens to it rather than by a thread or a task of its own.

A control plane has thousands of calls open that say something now and then. grpc's public ways to serve them cost a
thread for each, or about twice the CPU: asyncio is woken through a socket, a future and a coroutine for every message
(docs/benchmarks.md has the figures). Below both is one queue of completed operations, and one thread of grpc's own
that calls whoever waits for each. Here the operations of a call are started on that queue directly.

This module is all that knows of grpc's internals: ``_rpc_event.call``, two operations of ``cygrpc``, and the attribute
``experimental_non_blocking`` of a handler, with which grpc's own health service serves its watches. It knows nothing
of xDS.
"""

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


class Server(Protocol):
    """Whoever serves a call. Called by grpc's threads, one event after another; must not block."""

    def received(self, message: bytes) -> None:
        """Takes a message of the client."""

    def finished(self) -> None:
        """The client has nothing more to say."""

    def written(self) -> None:
        """What was written last is on its way: the next message may be written."""

    def ended(self) -> None:
        """The call is over, however that came."""


class Call:
    """A bidirectional call that a handler was given.

    Args:
        context: The handler's second argument.
        respond: Its third.

    Attributes:
        peer: The client's address.
        is_ending: Whether it was ended from here.
    """

    def __init__(self, context: grpc.ServicerContext, respond: Callable[[None], None]) -> None:
        self._context = context
        self._respond = respond
        self._core: Any = context._rpc_event.call  # type: ignore[attr-defined] # noqa: SLF001
        self.peer = context.peer()
        self.is_ending = False

    def serve(self, server: Server) -> None:
        """Tells the server of everything from now on."""
        self._server = server
        if self._context.add_callback(server.ended):
            self._context.send_initial_metadata(())
            self._read()
        else:
            server.ended()

    def write(self, message: bytes) -> None:
        """Writes a message. Only one at a time, and none after the end."""
        self._core.start_server_batch((cygrpc.SendMessageOperation(message, _NO_FLAGS),), self._on_written)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status, after what was written; the first status counts."""
        if not self.is_ending:
            self.is_ending = True
            self._context.set_code(code)
            self._context.set_details(details)
            self._respond(None)

    def cancel(self) -> None:
        """Ends the call at once, with what is being written."""
        self.is_ending = True
        self._context.cancel()

    def _read(self) -> None:
        self._core.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_read)

    def _on_read(self, event: Any) -> tuple[None, tuple[()]]:
        message = event.batch_operations[0].message()
        if message is None:
            self._tell(self._server.finished)
        else:
            self._tell(self._received, message)
        return _GO_ON

    def _received(self, message: bytes) -> None:
        if not self.is_ending:
            self._server.received(message)
            self._read()

    def _on_written(self, event: Any) -> tuple[None, tuple[()]]:
        if event.success:
            self._tell(self._server.written)
        return _GO_ON

    def _tell(self, tell: Callable[..., None], *args: bytes) -> None:
        """An error in one call must not end the thread that serves them all."""
        try:
            tell(*args)
        except Exception:
            log.exception("a call ends because of an error in its handler")
            self.end(grpc.StatusCode.INTERNAL, "an error in the server; its log says more")


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
