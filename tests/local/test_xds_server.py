"""xds-server as a program: identical responses of replicas, health, pages, CSDS, settings, and shutdown."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.status.v3 import csds_pb2
from envoy.service.status.v3.csds_pb2_grpc import ClientStatusDiscoveryServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.support import objects, running
from tests.support.ads import AdsClient
from tests.support.running import Running
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
HEALTH = health_pb2.HealthCheckResponse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two services; one has two ports, endpoints in two zones, and several slices."""
    folder = tmp_path / "endpoints"
    folder.mkdir()
    ports = [{"name": "grpc", "port": 50051}, {"name": "admin", "port": 9000}]
    objects.write(
        folder / "web.yaml",
        objects.service("web", ports=ports),
        *(
            objects.endpoint_slice(
                f"web-{zone}",
                "web",
                endpoints=[
                    {
                        "addresses": [f"10.0.{number}.{host}"],
                        "conditions": {"ready": True},
                        "zone": f"zone-{zone}",
                    }
                    for host in (7, 3, 5)
                ],
                ports=[{"name": "grpc", "port": 8080}, {"name": "admin", "port": 9000}],
            )
            for number, zone in enumerate("ba")
        ),
    )
    objects.write(folder / "empty.yaml", objects.service("empty"))
    return folder


def test_responses_of_two_servers_are_byte_identical(folder: Path) -> None:
    targets = ["web.default:50051", "web:admin", "empty", "web.default.svc.cluster.local:50051"]
    with XdsServer(folder) as one, XdsServer(folder) as other:
        with AdsClient(one.address) as first, AdsClient(other.address) as second:
            first.walk(*targets)
            second.walk(*targets)
            assert first.held == second.held
            assert all(held.version for held in first.held.values())

            # Each server discovers the same change by itself.
            before = first.held[ClusterLoadAssignment].version
            objects.write(
                folder / "empty-1.yaml",
                objects.endpoint_slice("empty-1", "empty", **objects.endpoints("10.0.9.1", port=80)),
            )
            for client in (first, second):
                client.wait_for_another(ClusterLoadAssignment, before)
            assert first.addresses("empty.default:50051") == ["10.0.9.1:80"]
            assert first.held == second.held
            changed = second.held

        # A server that starts later has not seen the earlier state.
        with XdsServer(folder) as third, AdsClient(third.address) as late, AdsClient(one.address) as fresh:
            late.walk(*targets)
            fresh.walk(*targets)
            assert late.held == fresh.held
            assert {kind: held.resources for kind, held in late.held.items()} == {
                kind: held.resources for kind, held in changed.items()
            }


def test_sigterm_ends_it_with_open_streams(folder: Path) -> None:
    with XdsServer(folder) as server:
        server.wait_until_ready()
        with AdsClient(server.address) as one, AdsClient(server.address) as other:
            one.walk("web.default:50051")
            other.walk("empty.default:50051")
            server.send(signal.SIGTERM)
            assert server.wait() == 0
            for client in (one, other):
                error = client.wait_for_end()
                assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not server.warnings()


@contextmanager
def api_server(port: int) -> Iterator[None]:
    """Runs a Kubernetes API without objects, whose watches end at once."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            group, _, kind = self.path.partition("?")[0].removeprefix("/").rpartition("/")
            names = {"services": "ServiceList", "endpointslices": "EndpointSliceList"}
            if kind not in names:
                self.send_error(404)
                return
            body = json.dumps(
                {
                    "apiVersion": group.partition("/")[2],
                    "kind": names[kind],
                    "metadata": {"resourceVersion": "1"},
                    "items": [],
                }
            ).encode()
            watching = "watch=" in self.path
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(0 if watching else len(body)))
            self.end_headers()
            if not watching:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Suppresses the access log."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_it_is_ready_after_the_first_sync_and_not_before(tmp_path: Path) -> None:
    port = running.free_port()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    with XdsServer(DISCOVERY="kubernetes", KUBECONFIG=str(tmp_path / "kubeconfig")) as server:
        wait_until("the admin pages", lambda: server.get("/livez") == (200, "ok\n"))
        assert server.get("/readyz")[0] == 503
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def status(service: str) -> int:
                answer = health.Check(
                    health_pb2.HealthCheckRequest(service=service), timeout=10, wait_for_ready=True
                )
                return int(answer.status)

            assert [status(""), status(ADS)] == [HEALTH.NOT_SERVING] * 2
            with api_server(port):
                server.wait_until_ready()
                wait_until("gRPC health to succeed", lambda: status("") == HEALTH.SERVING)
                assert status(ADS) == HEALTH.SERVING
            # The API server is gone again; the last known state stays served.
            wait_until("a warning about the API", server.warnings)
            assert server.get("/readyz")[0] == 200
            assert status("") == HEALTH.SERVING


def test_pages_and_reflection(folder: Path) -> None:
    with XdsServer(folder) as server:
        server.wait_until_ready()
        with AdsClient(server.address) as client:
            client.walk("web.default:50051")
            assert "web.default" in server.get("/debug/services")[1]
            assert "web.default:50051" in server.get("/debug/resources")[1]
            assert "raw" in server.get("/debug/clients")[1]
            pages = json.loads(server.get("/debug/")[1])
            assert {server.get(page)[0] for page in pages} == {200}
            assert "\n# TYPE " in server.get("/metrics")[1]
            assert server.get("/nothing")[0] == 404
        with grpc.insecure_channel(server.debug) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert {ADS, "grpc.health.v1.Health"} <= set(database.get_services())


def test_a_nack_is_reported_until_the_next_response_is_accepted(folder: Path) -> None:
    name = "empty.default:50051"
    words = "I don't like it"

    def change(address: str) -> None:
        fields = objects.endpoints(address, port=80)
        objects.write(folder / "empty-1.yaml", objects.endpoint_slice("empty-1", "empty", **fields))

    with (
        XdsServer(folder) as server,
        AdsClient(server.address) as client,
        grpc.insecure_channel(server.debug) as channel,
    ):
        csds = ClientStatusDiscoveryServiceStub(channel)

        def status() -> csds_pb2.ClientConfig.GenericXdsConfig:
            [answer] = csds.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=10).config
            [found] = [c for c in answer.generic_xds_configs if "LoadAssignment" in c.type_url]
            return found

        client.walk(name)
        accepted = client.held[ClusterLoadAssignment].version
        wait_until("ACKs of all types", lambda: status().config_status == csds_pb2.SYNCED)

        client.reason = words
        change("10.0.9.1")
        wait_until("a line in the log", lambda: server.warnings("client rejected a response"))
        [line] = server.warnings("client rejected a response")
        assert (line["node"], line["type"], line["reason"]) == ("raw", "EDS", words)
        assert 'xds_nacks_total{type="EDS"} 1.0' in server.get("/metrics")[1]
        [page] = json.loads(server.get("/debug/clients")[1])
        [shown] = page["resources"]["EDS"]
        assert (shown["name"], shown["status"], shown["rejected_because"]) == (name, "rejected", words)
        assert status().config_status == csds_pb2.ERROR
        assert status().error_state.details == words
        assert client.held[ClusterLoadAssignment].version == accepted
        # Another object changes: nothing is sent to this client.
        sent = 'xds_responses_total{type="EDS"} 2.0'
        assert sent in server.get("/metrics")[1]
        objects.write(folder / "other.yaml", objects.service("other"))
        wait_until("another change", lambda: "other" in server.get("/debug/services")[1])
        assert sent in server.get("/metrics")[1]

        client.reason = ""
        change("10.0.9.2")
        client.wait_for_another(ClusterLoadAssignment, accepted)
        wait_until("the next ACK", lambda: status().config_status == csds_pb2.SYNCED)
        assert not status().HasField("error_state")
        assert "rejected_because" not in server.get("/debug/clients")[1]
        assert len(server.warnings("client rejected a response")) == 1


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"POLL_INTERVAL": "soon"}, ("POLL_INTERVAL=soon",)),
        ({"WATCH": "perhaps"}, ("WATCH=perhaps",)),
        ({"DISCOVERY": "dns"}, ("DISCOVERY=dns", "kubernetes", "files")),
        ({"LOG_LEVEL": "LOUD"}, ("LOG_LEVEL=LOUD", "DEBUG", "ERROR")),
        ({"DISCOVERY": "files", "DISCOVERY_DIR": ""}, ("DISCOVERY_DIR",)),
    ],
)
def test_an_invalid_setting(settings: dict[str, str], parts: tuple[str, ...]) -> None:
    result = running.run("xds-server", "serve", env=running.environment(**settings))
    assert result.returncode == 2
    assert (result.stdout + result.stderr).count("\n") == 1
    assert all(part in result.stderr for part in parts)


def failures(program: Running) -> list[str]:
    """Returns the lines of a program's log, except for information."""
    return [line for line in program.lines if '"level": "info"' not in line]


def test_a_missing_folder(tmp_path: Path) -> None:
    with XdsServer(tmp_path / "none") as server:
        assert server.wait() == 2
    [line] = failures(server)
    assert "DISCOVERY_DIR" in line


@pytest.mark.parametrize("variable", ["LISTEN", "ADMIN_LISTEN", "DEBUG_LISTEN"])
def test_a_port_that_is_in_use(variable: str, folder: Path) -> None:
    with XdsServer(folder) as first:
        first.wait_until_ready()
        taken = {"LISTEN": first.address, "ADMIN_LISTEN": first.admin, "DEBUG_LISTEN": first.debug}[variable]
        with Running(
            "xds-server",
            "serve",
            env=running.environment(
                **{
                    "LISTEN": "127.0.0.1:0",
                    "ADMIN_LISTEN": "127.0.0.1:0",
                    "DEBUG_LISTEN": "127.0.0.1:0",
                    "DISCOVERY": "files",
                    "DISCOVERY_DIR": str(folder),
                    "LOG_FORMAT": "json",
                    variable: taken,
                }
            ),
        ) as second:
            assert second.wait() == 1
        [line] = failures(second)
        assert f"port {taken.rpartition(':')[2]} is in use" in line
        assert first.get("/readyz")[0] == 200


def test_open_calls_of_reflection_and_health_do_not_block_others(folder: Path) -> None:
    with (
        XdsServer(folder) as server,
        grpc.insecure_channel(server.address) as channel,
        grpc.insecure_channel(server.debug) as debug_channel,
    ):
        server.wait_until_ready()
        open_ended: list[grpc.Call] = []
        reflect: grpc.StreamStreamMultiCallable[Any, Any] = debug_channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        silent = threading.Event()
        open_ended += [reflect(iter(silent.wait, True)) for _ in range(100)]
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(10)]
        assert {next(watch).status for watch in watches} == {HEALTH.SERVING}
        open_ended += watches
        # Watches that start and end concurrently: grpc's own health servicer sometimes hangs on this.
        for _ in range(300):
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            next(watch)
            watch.cancel()
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == HEALTH.SERVING
        with AdsClient(server.address) as client:
            assert "web.default:50051" in client.ask(ClusterLoadAssignment, "web.default:50051").resources
        assert server.get("/livez") == (200, "ok\n")
        for call in open_ended:
            call.cancel()
        silent.set()
