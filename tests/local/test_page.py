"""The page over HTTP: what is at which address, who may read it, and that it follows the state."""

import hashlib
import http.client
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from envoy.config.listener.v3.listener_pb2 import Listener

from tests.support import objects
from tests.support.ads import AdsClient
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

HELLO = "hello-server.default:50051"
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 4711)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[XdsServer]:
    with XdsServer(folder, ADMIN_HOSTS="admin.example.com", POD_NAME="xds-server-1") as server:
        server.wait_until_ready()
        yield server


def write(folder: Path, *ports: int) -> None:
    objects.write(
        folder / "hello.yaml",
        objects.service("hello-server"),
        *(
            objects.endpoint_slice(
                f"hello-{port}", "hello-server", **objects.endpoints("127.0.0.1", port=port)
            )
            for port in ports
        ),
    )


def request(
    server: XdsServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(server.admin, timeout=10)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


PAGES = [
    "/",
    "/services",
    "/services/default/hello-server",
    "/traffic",
    "/clients",
    "/calls",
    "/why",
    f"/why?name={HELLO}",
]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_says_which_replica_it_is_of(server: XdsServer, path: str) -> None:
    status, headers, text = request(server, path)
    assert status == 200
    assert "<strong>xds-server-1</strong>" in text
    assert headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self';"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    # The policy allows nothing inline, and nothing of other hosts.
    assert " style=" not in text
    assert " onclick=" not in text
    assert "<script>" not in text
    assert "//" not in text.replace("xds://", "").replace("http-equiv", "")


def test_a_page_shows_the_endpoints(server: XdsServer) -> None:
    assert "127.0.0.1:4711" in request(server, "/services/default/hello-server")[2]
    assert HELLO in request(server, f"/why?name={HELLO}")[2]


@pytest.mark.parametrize(
    "path", ["/services/default/gone", "/clients/99", "/nothing", "/static/../page.css", "/static/gone.js"]
)
def test_what_does_not_exist_is_not_found(server: XdsServer, path: str) -> None:
    assert request(server, path)[0] == 404


@pytest.mark.parametrize(
    "query", ["?q=" + "x" * 5_000, "?page=-1", "?page=" + "9" * 50, "?page=x&q=%00", "?q=%ff"]
)
def test_rubbish_in_a_query_is_harmless(server: XdsServer, query: str) -> None:
    for path in ("/services", "/clients", "/traffic", "/calls"):
        assert request(server, path + query)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(server: XdsServer, method: str) -> None:
    for path in (*PAGES, "/debug/services", "/metrics", "/livez"):
        assert request(server, path.partition("?")[0], method)[0] == 405


def test_what_a_client_sends_is_text(server: XdsServer) -> None:
    with AdsClient(server.address) as client:
        client.node_id = EVIL
        client.subscribe(Listener, EVIL)
        wait_until("the client to be shown", lambda: "alert" in request(server, "/clients")[2])
        [link] = [
            part.partition('"')[0] for part in request(server, "/clients")[2].split('href="/clients/')[1:]
        ]
        for path in (
            "/clients",
            f"/clients/{link}",
            f"/why?name={EVIL.replace(' ', '%20')}",
            "/clients?q=<script>",
        ):
            _, _, text = request(server, path)
            assert "<script>" not in text
            assert "&lt;script&gt;" in text


# ---- who may read it ----


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:18080", 200),
        ("[::1]:18080", 200),
        ("localhost:18080", 200),
        ("xds-server:18080", 200),
        ("xds-server.xds-system.svc:18080", 200),
        ("xds-server.xds-system.svc.cluster.local", 200),
        ("admin.example.com", 200),
        ("evil.example.com:18080", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("xds-server.svc.evil.com", 421),
        ("svc.evil.com", 421),
        ("xds-server.xds-system.svc.evil.com", 421),
        ("xds-server.xds-system.svc.cluster.local.evil.com", 421),
    ],
)
def test_names_that_somebody_else_may_own_are_refused(server: XdsServer, host: str, status: int) -> None:
    assert request(server, "/", Host=host)[0] == status
    assert request(server, "/debug/services", Host=host)[0] == status
    assert request(server, "/metrics", Host=host)[0] == status
    assert request(server, "/livez", Host=host)[0] == 200


def test_requests_of_other_sites_are_refused(server: XdsServer) -> None:
    assert request(server, "/debug/clients", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    assert request(server, "/debug/clients", Origin="https://evil.example.com")[0] == 403
    assert request(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert request(server, "/", Sec_Fetch_Site="same-origin", Origin=f"http://{server.admin}")[0] == 200


def test_bad_requests_do_not_fill_the_log(folder: Path) -> None:
    with XdsServer(folder) as server:
        server.wait_until_ready()
        for _ in range(100):
            connection = http.client.HTTPConnection(server.admin, timeout=20)
            connection.request("GET", f"/why?name={'a' * 20_000}")
            assert connection.getresponse().status == 400
            connection.close()
        lines = server.warnings("bad HTTP request")
        assert 1 <= len(lines) < 100
        assert {line["level"] for line in lines} == {"warning"}
        assert not any("Traceback" in line for line in server.lines)


# ---- live ----


def test_a_page_follows_the_state(server: XdsServer, folder: Path) -> None:
    connection = http.client.HTTPConnection(server.admin, timeout=20)
    connection.request("GET", "/live/services/default/hello-server")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert "127.0.0.1:4711" in _event(response)
    write(folder, 4711, 4712)
    assert "127.0.0.1:4712" in _event(response)
    connection.close()


def test_a_page_of_something_that_goes_says_so(server: XdsServer, folder: Path) -> None:
    connection = http.client.HTTPConnection(server.admin, timeout=20)
    connection.request("GET", "/live/services/default/hello-server")
    response = connection.getresponse()
    assert "127.0.0.1:4711" in _event(response)
    (folder / "hello.yaml").unlink()
    assert "This is gone" in _event(response)
    connection.close()


def test_open_pages_do_not_delay_the_end(server: XdsServer) -> None:
    connections = [http.client.HTTPConnection(server.admin, timeout=20) for _ in range(5)]
    responses = []
    for connection in connections:
        connection.request("GET", "/live")
        responses.append(connection.getresponse())
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    for response in responses:
        response.read()
    for connection in connections:
        connection.close()


def _event(response: http.client.HTTPResponse) -> str:
    """The next message of an event stream."""
    lines = []
    while (line := response.readline()) != b"\n":
        assert line, "the stream has ended"
        lines.append(line.decode())
    return "".join(lines)


# ---- the package ----


def test_third_party_files_are_what_they_were() -> None:
    folder = files("xds_server.admin") / "static/vendor"
    pairs = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in pairs}
    present = {item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in folder.iterdir()}
    assert present.pop("SHA256SUMS")
    assert present == sums
    assert {name for name in present if name.endswith("LICENSE.txt")} == {
        "idiomorph-LICENSE.txt",
        "uplot-LICENSE.txt",
    }
