"""Real gRPC clients report how many requests they send."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from prometheus_client.parser import text_string_to_metric_families

from tests.support import objects, running
from tests.support.ads import AdsClient
from tests.support.running import Running
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

WEB = "web.default:50051"


class Demo:
    """A server whose one service, web, has a greeter that answers in each of two zones."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        ports = [running.free_port() for _ in "ab"]
        for port in ports:
            env = running.environment(PORT=str(port), HOSTNAME="web", POD_IP="127.0.0.1", DRAIN_DELAY="0")
            stack.enter_context(Running("hello-server", env=env)).wait_for_line("serving")
        slices = [
            objects.endpoint_slice(f"web-{zone}", "web", **objects.endpoints("127.0.0.1", port=port))
            for zone, port in zip("ab", ports, strict=True)
        ]
        for zone, found in zip("ab", slices, strict=True):
            found["endpoints"][0]["zone"] = zone
        objects.write(folder / "web.yaml", objects.service("web"), *slices)
        self.server = stack.enter_context(XdsServer(folder, LOAD_REPORT_INTERVAL="1", **settings))
        self.server.wait_until_ready()

    def client(self, stack: ExitStack) -> Running:
        """A client that calls 50 times a second."""
        bootstrap = (
            f'{{"xds_servers": [{{"server_uri": "{self.server.address}", "channel_creds": [{{"type": "insecure"}}],'
            '"server_features": ["xds_v3"]}], "node": {"id": "checkout-0.default"}}'
        )
        env = running.environment(
            TARGET=f"xds:///{WEB}", INTERVAL="0.02", GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap, LOG_FORMAT="json"
        )
        return stack.enter_context(Running("hello-client", env=env))

    def reported(self) -> dict[str, float]:
        """The requests to web, by result."""
        families = text_string_to_metric_families(self.server.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {
            sample.labels["result"]: sample.value
            for sample in samples
            if sample.name == "xds_load_requests_total" and sample.labels["service"] == WEB
        }


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_requests_of_a_client_are_counted(tmp_path: Path, stack: ExitStack) -> None:
    demo = Demo(tmp_path, stack)
    client = demo.client(stack)
    wait_until("100 requests to be reported", lambda: demo.reported().get("succeeded", 0) >= 100)
    replies = sum(record["event"] == "reply" for record in client.records)
    assert demo.reported()["succeeded"] <= replies + 1
    assert demo.reported()["failed"] == demo.reported()["dropped"] == 0


def test_without_load_reports_nobody_is_asked_for_any(tmp_path: Path, stack: ExitStack) -> None:
    demo = Demo(tmp_path, stack, LOAD_REPORTS="false")
    client = demo.client(stack)
    client.wait_for_line("reply")
    with AdsClient(demo.server.address) as ads:
        [body] = ads.ask(Cluster, WEB).resources.values()
    assert not Cluster.FromString(body).HasField("lrs_server")
    assert demo.reported() == {}
    with grpc.insecure_channel(demo.server.address) as channel:
        call: Any = channel.stream_stream("/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats")
        with pytest.raises(grpc.RpcError) as error:
            next(call(iter(()), timeout=10))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_service_that_is_gone_has_no_metrics(tmp_path: Path, stack: ExitStack) -> None:
    demo = Demo(tmp_path, stack)
    demo.client(stack)
    wait_until("requests to be reported", demo.reported)
    (tmp_path / "web.yaml").unlink()
    wait_until("the metrics to go", lambda: not demo.reported())


def test_it_ends_at_once_while_clients_report(tmp_path: Path, stack: ExitStack) -> None:
    demo = Demo(tmp_path, stack)
    demo.client(stack)
    wait_until("requests to be reported", demo.reported)
    demo.server.send(signal.SIGTERM)
    assert demo.server.wait() == 0
    assert not demo.server.warnings("does not stop")
