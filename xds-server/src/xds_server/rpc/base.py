"""What a call does in every transport: it ends once, ends with an error of its handler, and drops it at the end."""

import abc
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from xds_server.rpc.call import Arguments, Handler

log = structlog.get_logger()


def _uris(properties: Mapping[str, Any]) -> Sequence[str] | None:
    """Reads the client's certificate from grpc's description of a connection. grpc's own list of URIs ends each at a NUL."""
    found = properties.get("x509_pem_cert")
    if not found:
        return None
    # A server without TLS does not pay for what reads certificates.
    from cryptography import x509  # noqa: PLC0415

    try:
        certificate = x509.load_pem_x509_certificate(found[0])
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []


class BaseCall(abc.ABC):
    """One call of grpc's server.

    Args:
        context: What grpc gives to the method. Only its public methods are used here.

    Attributes:
        peer: The client's address.
        uris: Those in the client's certificate, which was verified; None if it has no certificate.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.peer = context.peer()
        self.uris = _uris(context.auth_context())
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
