"""Calls that start their operations on grpc's completion queue: no thread and no task of their own.

A control plane has thousands of calls open that say something now and then. grpc's public ways to serve them from
Python cost two threads for each call, or nearly twice the CPU: asyncio is woken through a socket, a future and a
coroutine for every message (docs/benchmarks.md has the figures). Both stand on the same base, which this module uses
directly:

- C-core, the library under grpc, does one *batch* of operations of a call at a time for each direction: receive a
  message, send a message, send the status. ``start_server_batch`` starts one and returns at once.
- A completed batch is an event on the server's *completion queue*. One thread of grpc's, ``_serve`` in
  ``grpc/_server.py``, takes every event and calls the function that was given with the batch. That function is where
  ``Handler.received`` and ``Handler.written`` are called, so an error must never leave it: it would end that thread.
- grpc calls a method with the attribute ``experimental_non_blocking`` with a third argument, a function that sends the
  status, and does not wait for responses. Otherwise the method would keep a thread until its call ends.
- grpc runs a method with the attribute ``experimental_thread_pool`` in that pool. One thread opens all calls, so that
  they never wait for methods that block a thread of the server's own pool.

The end of a call is known by the public ``add_callback``. None of the rest is public: the two attributes,
``context._rpc_event.call`` and ``cygrpc``. ``choice`` tests it when the program starts.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from xds_server.rpc.base import BaseCall
from xds_server.rpc.call import Call

_NO_FLAGS = 0
_CONTINUE: tuple[None, tuple[()]] = (None, ())
"""What grpc's thread expects from the function of a batch: no call is over, and no callback is due."""


class StartError(Exception):
    """C-core did not start an operation; the text has its ``grpc_call_error``, as in ``cygrpc.CallError``."""


class EventCall(BaseCall):
    """A call driven by completed operations.

    Args:
        context: The method's second argument.
        respond: Its third, which sends the status when it is called with None.
    """

    def __init__(self, context: grpc.ServicerContext, respond: Callable[[None], None]) -> None:
        super().__init__(context)
        self._respond = respond
        self._core: Any = context._rpc_event.call  # type: ignore[attr-defined] # noqa: SLF001

    def write(self, message: bytes) -> None:
        """Writes a message. If C-core does not start that, the call ends with status INTERNAL."""
        self.guard(self._send, message)

    def _start(self) -> None:
        try:
            self._context.send_initial_metadata(())
        except grpc.RpcError:
            return  # The client has cancelled the call: the callback tells the handler.
        self.guard(self._receive)

    def _finish(self) -> None:
        self._respond(None)

    def _send(self, message: bytes) -> None:
        self._begin(cygrpc.SendMessageOperation(message, _NO_FLAGS), self._on_sent)

    def _receive(self) -> None:
        self._begin(cygrpc.ReceiveMessageOperation(_NO_FLAGS), self._on_received)

    def _begin(self, operation: Any, completed: Callable[[Any], tuple[None, tuple[()]]]) -> None:
        """Starts an operation. C-core reports no event for one that did not start."""
        error = self._core.start_server_batch((operation,), completed)
        if error != cygrpc.CallError.ok:
            raise StartError(f"{type(operation).__name__} did not start: grpc_call_error {error}")

    def _on_received(self, event: Any) -> tuple[None, tuple[()]]:
        self.guard(self._take, event)
        return _CONTINUE

    def _take(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        handler = self._handler
        if handler is None or self.is_ending:
            return
        if message is None:
            handler.finished()
            return
        handler.received(message)
        if not self.is_ending:
            self._receive()

    def _on_sent(self, event: Any) -> tuple[None, tuple[()]]:
        self.guard(self._sent, event)
        return _CONTINUE

    def _sent(self, event: Any) -> None:
        handler = self._handler
        if handler is not None and event.success:
            handler.written()


class EventTransport:
    """Serves calls by their completed operations."""

    name = "events"
    server_threads = 0

    def __init__(self) -> None:
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="opens calls")

    def method(self, opened: Callable[[Call], None]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Returns a method handler that passes each new call to ``opened``, from the one thread for that."""

        def behavior(_: object, context: grpc.ServicerContext, respond: Callable[[None], None]) -> None:
            call = EventCall(context, respond)
            call.guard(opened, call)

        behavior.experimental_non_blocking = True  # type: ignore[attr-defined]
        behavior.experimental_thread_pool = self._opening  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(behavior)

    def close(self) -> None:
        """Ends the thread that opens calls."""
        self._opening.shutdown(wait=False)
