"""Encryption and authorization in each language: towards xds-server, and between clients and servers."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop import envoy
from tests.interop.client import Client, call_until
from tests.interop.conftest import Note, build
from tests.interop.languages import LANGUAGES, RUST, Language
from tests.interop.mesh import SERVICE, TARGET
from tests.interop.secured import (
    ALLOWED,
    OTHER,
    PYTHON,
    SERVER,
    Secured,
    allow,
    greeter,
    greeters,
    program,
    secured,
    tls,
)
from tests.support import running

BY_NAME = {language.name: language for language in (*LANGUAGES, RUST, envoy.ENVOY)}
CLIENTS = [language.name for language in (*LANGUAGES, RUST)]
SERVERS = [
    *(language.name for language in LANGUAGES),
    pytest.param("Rust", marks=pytest.mark.skip(reason="n/a: tonic-xds has no server")),
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def can_do_without(language: str) -> dict[str, bool]:
    """What xds-server has to allow for a language."""
    return {"needs_certificates": language != "Java", "has_plaintext": language == "Node"}


def serve(mesh: Secured, stack: ExitStack, language: Language, **variables: str) -> None:
    """Starts the server ``one`` in a language. Its EndpointSlice has to be there already."""
    if language is PYTHON:
        greeter(mesh, stack, "one")
    else:
        program(mesh, stack, language, SERVER, "one", **variables).serve("one", mesh.servers["one"])


@pytest.mark.parametrize("start", [*BY_NAME])
def test_towards_xds_server(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """Towards `xds-server`"""
    if start == "Node":
        note("plaintext: grpc-js refuses `tls` in its bootstrap")
    elif start == "Java":
        note("TLS, without a certificate of its own")
    else:
        note("mutual TLS")
    mesh = secured(tmp_path, stack, **can_do_without(start))
    greeters(mesh, stack, hello_server={})
    client: Client
    if start == "Envoy":
        command = build(envoy.ENVOY)
        client = stack.enter_context(envoy.Envoy(command, mesh.address, "envoy", tmp_path / ALLOWED))
    else:
        client = program(mesh, stack, BY_NAME[start], ALLOWED)
    client.open("a", TARGET)
    call_until(client, "a", "both servers", lambda replies: set(replies.hosts) == set(mesh.servers))


@pytest.mark.parametrize("mode", ["Simple", pytest.param("Mutual", marks=pytest.mark.smoke)])
@pytest.mark.parametrize("start", CLIENTS)
def test_clients_encrypt(tmp_path: Path, stack: ExitStack, start: str, mode: str, note: Note) -> None:
    """Clients: `tls`, to servers in Python; another name in the server's certificate is refused"""
    mesh = secured(tmp_path, stack, **can_do_without(start))
    greeters(
        mesh, stack, hello_server=tls(mode=mode), wrong=tls(mode=mode, names=["another.name", "hello-server"])
    )
    client = program(mesh, stack, BY_NAME[start], ALLOWED)
    client.open("a", TARGET)
    replies = client.call("a", 20)
    assert replies.failures == []
    assert set(replies.hosts) == set(mesh.servers)
    client.open("b", TARGET.replace(SERVICE, "wrong"))
    refused = client.call("b", 3, patient=False)
    assert [failure["code"] for failure in refused.failures] == ["UNAVAILABLE"] * 3
    note("yes")


@pytest.mark.parametrize("start", CLIENTS)
def test_a_provider_that_the_client_lacks(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """Clients: a `certificateProvider` that their bootstrap lacks is rejected; the log and an Event tell it"""
    mesh = secured(tmp_path, stack, **can_do_without(start))
    mesh.servers = {"one": running.free_port()}
    policy = tls()
    policy["tls"]["certificateProvider"] = "elsewhere"
    mesh.serve(hello_server=policy)
    client = program(mesh, stack, BY_NAME[start], ALLOWED)
    client.open("a", TARGET)
    [failure] = client.call("a", patient=False).failures
    if start == "Rust":
        assert failure["code"] == "DEADLINE_EXCEEDED"
        note("accepts it; calls wait until their deadline")
        return
    assert failure["code"] == "UNAVAILABLE"
    if start == "Go":
        assert "elsewhere" in failure["details"]
        note("accepts it; calls fail with the provider's name")
        return
    [rejected] = mesh.server.warnings("client rejected a response")
    assert rejected["type"] == "CDS"
    assert "elsewhere" in rejected["reason"]
    note("yes")


@pytest.mark.parametrize("start", CLIENTS)
def test_a_policy_that_can_not_be_used(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """A security policy that can't be used closes its Service: warm clients and servers fail every call"""
    language = BY_NAME[start]
    mesh = secured(tmp_path, stack, **can_do_without(start))
    mesh.servers = {"one": running.free_port()}
    mesh.serve(hello_server={})
    # The filter of an authorization is not needed for that.
    serve(mesh, stack, PYTHON if start == "Rust" else language, GRPC_XDS_EXPERIMENTAL_RBAC="false")
    client = program(mesh, stack, language, ALLOWED)
    client.open("a", TARGET)
    direct = program(mesh, stack, PYTHON, ALLOWED)
    direct.open("a", f"127.0.0.1:{mesh.servers['one']}")
    for each in (client, direct):
        call_until(each, "a", "replies", lambda replies: len(replies.hosts) == 6)
    mesh.serve(hello_server=tls(mode="Strict"))
    for each in (client, direct):
        call_until(
            each,
            "a",
            "the end of all calls",
            lambda replies: [failure["code"] for failure in replies.failures] == ["UNAVAILABLE"] * 3,
            times=3,
            patient=False,
        )
    mesh.serve(hello_server={})
    for each in (client, direct):
        call_until(each, "a", "replies again", lambda replies: len(replies.hosts) == 6)
    note("yes, as a client" if start == "Rust" else "yes")


@pytest.mark.parametrize("start", SERVERS)
def test_servers_follow(tmp_path: Path, stack: ExitStack, start: str, note: Note) -> None:
    """Servers: `tls` Mutual and `authorization`, called by Python: allowed, another client, another method, plaintext"""
    language = BY_NAME[start]
    mesh = secured(tmp_path, stack, **can_do_without(start))
    mesh.servers = {"one": running.free_port()}
    mesh.serve(hello_server={**tls(), **allow(methods=["/greeter.v1.Greeter/SayHello"])})
    serve(mesh, stack, language)
    # Java's and Node's needs of xds-server are those of their clients, and Python can do with any.
    client = program(mesh, stack, PYTHON, ALLOWED)
    client.open("a", TARGET)
    call_until(client, "a", "replies", lambda replies: len(replies.hosts) == 6)
    stranger = program(mesh, stack, PYTHON, OTHER)
    stranger.open("a", TARGET)
    [failure] = stranger.call("a").failures
    assert failure["code"] == "PERMISSION_DENIED"
    direct = program(mesh, stack, PYTHON, ALLOWED)
    direct.open("a", f"127.0.0.1:{mesh.servers['one']}")
    [failure] = direct.call("a", patient=False).failures
    assert failure["code"] == "UNAVAILABLE"
    mesh.serve(hello_server={**tls(), **allow(methods=["/grpc.health.v1.Health/*"])})
    call_until(
        client,
        "a",
        "the refusal of this method",
        lambda replies: [failure["code"] for failure in replies.failures] == ["PERMISSION_DENIED"] * 3,
        times=3,
    )
    note("with `GRPC_XDS_EXPERIMENTAL_RBAC=true`" if start == "Node" else "yes")
