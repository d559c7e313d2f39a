"""What a call does in every transport: it ends once, ends with an error of its handler, and drops it at the end."""

import abc
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from xds_server.rpc.call import Arguments, Handler

log = structlog.get_logger()


def _spiffe_ids(properties: Mapping[str, Any]) -> Sequence[str] | None:
    """Reads grpc's description of a connection, in which each property is a list of bytes."""
    if "x509_pem_cert" not in properties:
        return None
    found = (uri.decode(errors="replace") for uri in properties.get("peer_uri", ()))
    return [uri for uri in found if uri.startswith("spiffe:")]


class BaseCall(abc.ABC):
    """One call of grpc's server.

    Args:
        context: What grpc gives to the method. Only its public methods are used here.

    Attributes:
        peer: The client's address.
        spiffe_ids: The SPIFFE ids in the client's certificate, which was verified; None if it has no certificate.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.peer = context.peer()
        self.spiffe_ids = _spiffe_ids(context.auth_context())
        self._context = context
        self._handler: Handler | None = None
        self._end = threading.Lock()

    @property
    def is_ending(self) -> bool:
        """Whether ``end`` or ``cancel`` was called."""
        return self._end.locked()

    def serve(self, handler: Handler) -> None:
        """Starts to read, and calls the handler for every event from now on."""
        self._handler = handler
        if self._context.add_callback(self._over):
            self._start()
        else:
            self._over()

    @abc.abstractmethod
    def write(self, message: bytes) -> None:
        """Writes a message: one at a time, and none after the end."""

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status, after what was written. The first end counts."""
        if self._end.acquire(blocking=False):
            self._context.set_code(code)
            self._context.set_details(details)
            self._finish()

    def cancel(self) -> None:
        """Ends the call at once, dropping a message that the client does not read."""
        self._end.acquire(blocking=False)
        self._context.cancel()

    def guard(self, step: Callable[[*Arguments], None], *args: *Arguments) -> None:
        """Runs a step. An error in it ends this call, and not the thread of grpc that serves all of them."""
        try:
            step(*args)
        except Exception:
            log.exception("an error in the server ends a call", peer=self.peer, hint="report this traceback")
            self.end(grpc.StatusCode.INTERNAL, "an error in the server; its log has the details")

    @abc.abstractmethod
    def _start(self) -> None:
        """Starts to read."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """Makes grpc send the status, after what was written."""

    def _over(self) -> None:
        """Drops the handler, so that both are freed by reference counting."""
        handler, self._handler = self._handler, None
        if handler is not None:
            self.guard(handler.ended)
