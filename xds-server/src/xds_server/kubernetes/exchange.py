"""One HTTP request and its answer, with a deadline for both together.

urllib3's read timeout bounds each read, so a server that sends a byte now and then could hold a request for ever. An
exchange shuts the socket down at its deadline, which ends a read in another thread.
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

_thread = threading.local()
"""``_thread.exchange``: by this a connection finds the exchange that it serves; urllib3 has no parameter for it."""


class Exchange:
    """A context in which one thread makes one request, over a pool that ``observe`` prepared.

    Attributes:
        expired: Whether the deadline passed.
        connected: Whether a connection was opened for it; otherwise it used one that had been idle.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.connected = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        _thread.exchange = self
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _thread.exchange = None
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def allow_silence(self, seconds: float) -> None:
        """Sets how long each read may wait from now on: urllib3 has one timeout for the head and the body."""
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def attach(self, used: socket.socket | None) -> None:
        """Takes the socket from which the answer will be read."""
        with self._lock:
            self._socket = used
            if self.expired:
                self._shut_down()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _ObservedConnection(HTTPConnection):
    """Tells the current exchange of this thread about its connection."""

    def connect(self) -> None:
        exchange: Exchange | None = getattr(_thread, "exchange", None)
        if exchange is not None:
            exchange.connected = True
        super().connect()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3 overrides http.client's
        exchange: Exchange | None = getattr(_thread, "exchange", None)
        if exchange is not None:
            exchange.attach(self.sock)
        return super().getresponse()


def observe(manager: urllib3.PoolManager) -> None:
    """Lets exchanges see the connections of all pools that the manager will make."""
    manager.pool_classes_by_scheme = {
        scheme: _observed(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _observed(pool: type[urllib3.HTTPConnectionPool]) -> type[urllib3.HTTPConnectionPool]:
    used = pool.ConnectionCls
    connection = type(f"Observed{used.__name__}", (_ObservedConnection, used), {})
    return type(f"Observed{pool.__name__}", (pool,), {"ConnectionCls": connection})
