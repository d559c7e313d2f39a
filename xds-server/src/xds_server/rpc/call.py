"""The interface of one bidirectional call whose messages are bytes, and of whoever handles it."""

from collections.abc import Callable
from typing import Protocol

import grpc


class Handler(Protocol):
    """Handles one call. Each method is called from one of grpc's threads, one event after another; must not block."""

    def received(self, message: bytes) -> None:
        """The client sent a message."""

    def finished(self) -> None:
        """The client will send no more messages."""

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
    def is_ending(self) -> bool:
        """Whether ``end`` or ``cancel`` was called."""

    def serve(self, handler: Handler) -> None:
        """Starts to read, and calls the handler for every event from now on."""

    def write(self, message: bytes) -> None:
        """Writes a message: one at a time (see ``Handler.written``), and none after the end."""

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call with a status, after what was written. The first end counts."""

    def cancel(self) -> None:
        """Ends the call at once, dropping a message that the client does not read."""

    def guard(self, step: Callable[..., None], *args: bytes) -> None:
        """Runs a step of the handler. An error in it ends this call alone, with status INTERNAL."""


class Transport(Protocol):
    """One implementation of calls.

    Attributes:
        name: For the log and metrics.
        server_threads: How many threads the server's own pool needs.
    """

    name: str
    server_threads: int

    def method(self, opened: Callable[[Call], None]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """A method handler that passes each new call to ``opened``, from one thread at a time."""
