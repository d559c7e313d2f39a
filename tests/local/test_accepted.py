"""A real gRPC client accepts every combination of what routes, policies and zones may become, and its calls succeed."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest

from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse
from greeter.v1.greeter_pb2_grpc import GreeterServicer, add_GreeterServicer_to_server
from tests.support import running
from xds_server.ads.servicer import AdsServicer
from xds_server.ads.stream import Rejected
from xds_server.app import make_server
from xds_server.cache.cache import Cache
from xds_server.model import traffic
from xds_server.model.service import Endpoint, Port, PortName, Service, ServiceName, SocketAddress
from xds_server.model.tables import ENDPOINTS, POLICIES, ROUTES, SERVICES, Entry
from xds_server.model.traffic import (
    Backend,
    CallPolicy,
    Header,
    Match,
    OutlierDetection,
    PathType,
    Policy,
    Rule,
)
from xds_server.resources.builders import builder
from xds_server.rpc.events import EventTransport

CALL = Path(__file__).parents[1] / "support" / "call.py"

TIMEOUTS = (None, 0.0, 30.0)
RETRIES = (None, traffic.Retry(("CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"), 4, 0.001))
FAULTS = (
    None,
    traffic.Fault(),
    traffic.Fault(traffic.Abort("UNAUTHENTICATED", 0), traffic.Delay(0.001, 100)),
)
BOUNDS = (None, 1000)
OUTLIERS = (
    None,
    OutlierDetection(),
    OutlierDetection(failure_percentage=traffic.FailurePercentage()),
    OutlierDetection(0.5, 1, 1, 100, traffic.FailurePercentage(), traffic.SuccessRate()),
)
BALANCING = (
    None,
    traffic.RingHash("x-user"),
    traffic.RingHash("x-user", 64),
    traffic.WeightedRoundRobin(),
    traffic.WeightedRoundRobin(1, 1, 1),
)
MISSING = traffic.Unavailable(traffic.UnavailableReason.BACKEND_NOT_FOUND, "Service shop/gone")
OTHER = PortName(ServiceName("shop", "other"), 80)


def policies() -> Iterator[Policy]:
    """Every combination: of what routes say, and of what clusters say."""
    for parts in itertools.product(TIMEOUTS, RETRIES, FAULTS):
        yield Policy(CallPolicy(*parts))
    for bound, outliers, balancing in itertools.product(BOUNDS, OUTLIERS, BALANCING):
        yield Policy(CallPolicy(30.0, RETRIES[1], FAULTS[2]), bound, outliers, balancing)


def rules(port: PortName) -> Iterator[Rule]:
    """Every kind of match, with one backend and with several; the last one takes the call of the test."""
    paths = (
        traffic.Path(PathType.EXACT, "/shop.Shop/Buy"),
        traffic.Path(PathType.PREFIX, "/shop.Shop/"),
        traffic.Path(PathType.REGEX, "/[^/]+/Buy.*"),
    )
    headers = (Header("x-user", "somebody"), Header("x-user", "some(body|one)", is_regex=True))
    backends = (Backend(port, 90), Backend(OTHER, 9), Backend(MISSING, 1))
    for path, number in itertools.product(paths, range(3)):
        yield Rule(Match(path, headers[:number]), backends[number:], CallPolicy(timeout=0.0))
    yield Rule(Match(headers=headers), backends[2:])
    yield Rule(Match(), backends[:2])


class Greeter(GreeterServicer):
    def SayHello(self, request: SayHelloRequest, context: grpc.ServicerContext) -> SayHelloResponse:  # noqa: N802
        return SayHelloResponse(hostname="here")


@pytest.fixture
def greeter() -> Iterator[int]:
    """The port of a greeter that listens on all addresses."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    yield port
    server.stop(0).wait()


@pytest.fixture
def cache() -> Cache:
    return Cache(partial(builder, cluster_domain="cluster.local", load_reports=True))


@pytest.fixture
def rejected() -> list[Rejected]:
    """What the client has rejected."""
    return []


@pytest.fixture
async def xds_server(cache: Cache, rejected: list[Rejected]) -> AsyncIterator[str]:
    """The address of an ADS server."""
    transport = EventTransport()
    servicer = AdsServicer(cache, transport)
    servicer.report_to(rejected.append)
    server = make_server(transport, max_connection_age=1800, max_streams=1000)
    server.add_generic_rpc_handlers((servicer.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    await asyncio.to_thread(server.stop(0).wait)
    transport.close()


def endpoints(port: int) -> tuple[Endpoint, ...]:
    """Endpoints in two zones, with hints."""
    return tuple(
        Endpoint(zone, (SocketAddress(ip, port),), (zone,))
        for zone, ip in (("a", "127.0.0.1"), ("a", "127.0.0.2"), ("b", "127.0.0.3"))
    )


async def answers(xds_server: str, targets: Iterable[str]) -> dict[str, str]:
    """Calls each target with the Python client, and returns the host that answered, or the failure."""
    server = {"server_uri": xds_server, "channel_creds": [{"type": "insecure"}]}
    node = {"id": "test", "metadata": {"NAMESPACE": "shop"}, "locality": {"zone": "a"}}
    bootstrap = json.dumps({"xds_servers": [server], "node": node})
    env = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap)
    run = partial(running.run, "python", str(CALL), *targets, env=env, seconds=100)
    result = await asyncio.to_thread(run)
    assert result.returncode == 0, result.stderr
    found: dict[str, str] = json.loads(result.stdout)
    return found


async def test_every_combination(
    cache: Cache, xds_server: str, greeter: int, rejected: list[Rejected]
) -> None:
    ports = {
        PortName(ServiceName("shop", f"service-{number}"), 80): policy
        for number, policy in enumerate(policies())
    }
    changes: dict[Entry, object] = {}
    for port in (OTHER, *ports):
        changes[Entry(SERVICES, port.service)] = Service(port.service, (Port("", 80, is_grpc=True),))
        changes[Entry(ENDPOINTS, port)] = endpoints(greeter)
    for number, (port, policy) in enumerate(ports.items()):
        changes[Entry(POLICIES, port)] = policy
        # The others have the implicit route.
        if number % 2:
            changes[Entry(ROUTES, traffic.RouteScope(port))] = tuple(rules(port))
    cache.publish(changes)
    found = await answers(xds_server, [f"xds:///{port}" for port in ports])
    assert [(reject.names, reject.message) for reject in rejected] == []
    failed = {name: answer for name, answer in found.items() if answer != "here"}
    assert failed == {}, [ports[port] for port in ports if f"xds:///{port}" in failed][:3]
    assert len(found) == len(ports) == 18 + 40
