"""The interface of one bidirectional call whose messages are bytes, and of whoever handles it."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVarTuple

import grpc

Arguments = TypeVarTuple("Arguments")


class Handler(Protocol):
    """Handles one call. Its methods are called from grpc's threads, one event after another; they must not block.

    After ``Call.end`` or ``Call.cancel`` only ``written`` and ``ended`` are called.
    """

    def received(self, message: bytes) -> None:
        """The client sent a message."""

    def finished(self) -> None:
        """The client will send no more messages: it said so, or the call is about to end."""

    def written(self) -> None:
        """The last message was passed on to the network: the next one may be written."""

    def ended(self) -> None:
        """The call is over, for whatever reason. Called once, and nothing after it."""


class Call(Protocol):
    """One call. Its methods may be called from any thread, and do not block."""

    @property
    def peer(self) -> str:
        """The client's address, as grpc spells it, such as ``ipv4:10.0.0.1:4711``."""

    @property
    def uris(self) -> Sequence[str] | None:
        """Those in the client's certificate, which was verified; None if it has no certificate."""

    @property
    def is_ending(self) -> bool:
        """Whether ``end`` or ``cancel`` was called."""

    def serve(self, handler: Handler) -> None:
        """Starts to read, and calls the handler for every event from now on."""

    def write(self, message: bytes) -> None:
        """Writes a message: one at a time (see ``Handler.written``), and none after the end."""

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status, after what was written. The first end counts."""

    def cancel(self) -> None:
        """Ends the call at once, dropping a message that the client does not read. Also works after ``end``."""

    def guard(self, step: Callable[[*Arguments], None], *args: *Arguments) -> None:
        """Runs a step of the handler. An error in it ends this call alone, with status INTERNAL."""


class Transport(Protocol):
    """One implementation of calls."""

    @property
    def name(self) -> str:
        """The name for logs and metrics."""

    @property
    def server_threads(self) -> int:
        """How many threads of the server's own pool all calls need together; 0 if they need none."""

    def method(self, opened: Callable[[Call], None]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Returns a method handler that passes each new call to ``opened``, one call at a time.

        ``opened`` either serves the call or ends it; an error in it ends the call with status INTERNAL.
        """

    def close(self) -> None:
        """Ends the transport's own threads, once the server has stopped."""
