"""The HTTP/2 bytes with which a client opens a connection and a stream, written by hand.

gRPC's own clients always read; clients that do not read need plain sockets.
https://www.rfc-editor.org/rfc/rfc9113, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from collections.abc import Mapping

_HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    ":authority": "xds-server",
    "te": "trailers",
    "content-type": "application/grpc",
}
_DATA, _HEADERS_FRAME, _SETTINGS, _WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x8
_END_HEADERS = 0x4
_INITIAL_WINDOW_SIZE = 0x4
_LARGEST_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 65_535

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def opening(*, takes_everything: bool) -> bytes:
    """Returns the begin of a connection; with `takes_everything`, flow control does not limit the server."""
    if not takes_everything:
        return PREFACE + _frame(_SETTINGS)
    size = _INITIAL_WINDOW_SIZE.to_bytes(2) + _LARGEST_WINDOW.to_bytes(4)
    more = (_LARGEST_WINDOW - _DEFAULT_WINDOW).to_bytes(4)
    return PREFACE + _frame(_SETTINGS, size) + _frame(_WINDOW_UPDATE, more)


def ads_stream(*messages: bytes) -> bytes:
    """Returns the begin of an ADS stream on a new connection, with these messages."""
    data = b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
    return _frame(_HEADERS_FRAME, _literal(_HEADERS), flags=_END_HEADERS, stream=1) + _frame(
        _DATA, data, stream=1
    )


def _frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _literal(headers: Mapping[str, str]) -> bytes:
    """Encodes headers without compression: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers.items())


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
