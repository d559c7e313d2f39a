"""Listening on an address, with errors that say what is wrong with it."""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence

import grpc

from servicekit import addresses
from servicekit.addresses import Address
from servicekit.errors import AddressError

SERVER_OPTIONS: Sequence[tuple[str, int]] = (("grpc.so_reuseport", 0),)
"""For every server. Without it, Linux lets two programs share a port, and each gets half of the calls."""


def bind(
    server: grpc.Server | grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    """Makes `server` listen on `address` (HOST:PORT) and returns the port.

    Args:
        server: What listens.
        address: Where.
        credentials: With which; None: without encryption.

    Raises:
        AddressError: Listening there is impossible; the message says why.
    """
    host, port = _parse(address)
    if reason := _why_not_bindable(host, port):
        raise AddressError(f"cannot listen on {address}: {reason}")
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {address}: {host} is no address of this machine") from error


def bind_loopback(server: grpc.Server) -> str:
    """Makes `server` listen on a free port of the loopback interface too, and returns the address.

    Raises:
        AddressError: There is no loopback interface.
    """
    for host in ("127.0.0.1", "[::1]"):
        with contextlib.suppress(RuntimeError):
            return f"{host}:{server.add_insecure_port(f'{host}:0')}"
    raise AddressError("cannot listen on 127.0.0.1 or [::1]: bring the loopback interface up")


def open_socket(address: str) -> socket.socket:
    """Returns a socket that listens on `address` (HOST:PORT), for a server that is not gRPC.

    Raises:
        AddressError: Listening there is impossible; the message says why.
    """
    host, port = _parse(address)
    if reason := _why_not_bindable(host, port):
        raise AddressError(f"cannot listen on {address}: {reason}")
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(where[:2], family=family, dualstack_ipv6=dual)
    except OSError as error:
        if host == "::":
            # A machine without IPv6: all of its addresses are those of IPv4.
            return open_socket(f"0.0.0.0:{port}")
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from error


def _parse(address: str) -> Address:
    try:
        return addresses.parse(address)
    except ValueError as error:
        raise AddressError(f"cannot listen on {address}: {error}") from None


def _why_not_bindable(host: str, port: int) -> str | None:
    """Returns why listening there is impossible, which gRPC's error does not say; leaves rarer causes to gRPC."""
    try:
        candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        return (
            f"{host} is not known here ({error.strerror}); write an address of this machine or [::] for all"
        )
    for family, kind, protocol, _, address in candidates:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is in use; end the program that has it (`lsof -i :{port}` names it) or take another"
            if error.errno == errno.EACCES:
                return f"user {os.getuid()} may not; take a port from 1024 up"
            if error.errno == errno.EADDRNOTAVAIL and host not in ("::", "0.0.0.0"):
                return f"{host} is no address of this machine; write one that is, or [::] for all"
    return None
