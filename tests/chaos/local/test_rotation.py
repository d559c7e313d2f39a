"""Everybody's certificates are renewed again and again, and the authority is replaced, under load."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local_demo.certificates import Authority
from tests.interop.client import Program
from tests.interop.languages import LANGUAGES
from tests.interop.mesh import TARGET
from tests.interop.secured import ALLOWED, SERVER, Secured, allow, greeter, program, secured, tls
from tests.support import running

PARALLELISM, INTERVAL = 4, 0.02
USABLE = [language for language in LANGUAGES if not language.missing]
"""Java and Node connect to xds-server without a certificate of their own, and to servers with one."""
WITH_XDS_SERVER = {"Go"}
"""Languages whose servers take part, beside two in Python."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("period", "renewals"),
    [pytest.param(5.0, 8, id="short", marks=pytest.mark.short), pytest.param(30.0, 20, id="10 minutes")],
)
def test_no_call_and_no_stream_is_lost(
    tmp_path: Path, stack: ExitStack, period: float, renewals: int
) -> None:
    """The authority is replaced in the middle: first both are trusted, then the new one signs, then it alone is trusted."""
    mesh = secured(tmp_path, stack, has_plaintext=True)
    start_servers(mesh, stack)
    clients = {language.name: program(mesh, stack, language, ALLOWED) for language in USABLE}
    for client in clients.values():
        client.open("a", TARGET)
        assert client.call("a", 10).failures == []
        client.start_load("a", parallelism=PARALLELISM, interval=INTERVAL)
    before = streams(mesh)
    assert len(before) >= len(clients) + len(mesh.servers)
    old, new = mesh.authority, Authority("new")
    trusted: tuple[Authority, ...] = (old,)
    newcomers = 0
    for number in range(renewals):
        match number:
            case _ if number == renewals // 2:
                trusted = (old, new)
            case _ if number == renewals // 2 + 1:
                mesh.authority = new
            case _ if number == renewals // 2 + 2:
                trusted = (new,)
        mesh.issue(*trusted)
        began = time.monotonic()
        # New connections, of which each takes a handshake. Files are read again every second.
        while time.monotonic() - began < period:
            newcomers += 1
            call_as_a_newcomer(mesh)
    for name, client in clients.items():
        result = client.stop_load("a")
        print(
            f"{name}: {sum(result.hosts.values())} calls, {len(result.failures)} failed, longest {result.slowest} ms"
        )
        assert result.failures == []
        assert result.hosts.keys() == mesh.servers.keys()
    lost = before - streams(mesh)
    print(f"{renewals} renewals; {newcomers} newcomers; {len(before)} streams, {len(lost)} lost")
    assert not lost


def start_servers(mesh: Secured, stack: ExitStack) -> None:
    """Starts two servers in Python and one in each other language that takes part."""
    others = [language for language in USABLE if language.name in WITH_XDS_SERVER]
    mesh.servers = {name: running.free_port() for name in ("one", "two", *(each.name for each in others))}
    mesh.serve(hello_server={**tls(), **allow()})
    for name in ("one", "two"):
        greeter(mesh, stack, name)
    for each in others:
        program(mesh, stack, each, SERVER, each.name).serve(each.name, mesh.servers[each.name])


def call_as_a_newcomer(mesh: Secured) -> None:
    """Calls from a new process, so that all connections are new."""
    with ExitStack() as stack:
        client: Program = program(mesh, stack, LANGUAGES[0], ALLOWED)
        client.open("a", TARGET)
        assert client.call("a", 3).failures == []


def streams(mesh: Secured) -> set[int]:
    """The numbers of the open streams."""
    status, text = mesh.server.get("/debug/clients")
    assert status == 200
    return {client["stream"] for client in json.loads(text)}
