"""Random invalid input in bulk: the server keeps running, releases its memory, and serves valid clients and objects.

`task test:fuzz SCALE=1` sends a million messages and a hundred thousand objects, assembles a hundred thousand routes,
and connects ten thousand times; the default test run does a hundredth of that. The seed is printed; SEED repeats a run.
"""

import functools
import json
import os
import random
from pathlib import Path

import grpc
import pytest
import re2
import structlog
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.api_stub import ApiStub, endpoint_slice, service
from tests.support.convert import convert
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer
from xds_server.errors import MalformedObjectError
from xds_server.mesh.routes import RouteAssembler
from xds_server.model.service import Port, PortName, Service, ServiceName
from xds_server.model.tables import CONSUMED, ROUTES
from xds_server.model.traffic import CallPolicy, PathType, Unavailable
from xds_server.objects.meta import key
from xds_server.resources.names import parse_unavailable
from xds_server.resources.types import ResourceType

SCALE = float(os.environ.get("SCALE", "0.01"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
EDS = ResourceType.ENDPOINTS.value
GOOD = "web.shop:80"
MESSAGES_A_STREAM = 200


@pytest.fixture
def chance():
    print(f"SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def api():
    stub = ApiStub()
    stub.apply(service())
    stub.apply(endpoint_slice("10.0.0.1"))
    yield stub
    stub.stop()


@pytest.fixture
def server(api, tmp_path):
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    with XdsServer(KUBECONFIG=str(kubeconfig), LOG_LEVEL="ERROR") as running:
        running.wait_until_ready()
        yield running
        assert not [line for line in running.lines if "Traceback" in line]


def stream(channel, messages):
    """Sends encoded requests on one stream and returns the responses."""
    return channel.stream_stream(METHOD, None, discovery_pb2.DiscoveryResponse.FromString)(
        iter(messages), timeout=60
    )


def serves(server):
    """Returns whether a client with a valid request gets the right endpoints."""
    valid = discovery_pb2.DiscoveryRequest(type_url=EDS, resource_names=[GOOD]).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        response = next(stream(channel, [valid]))
        return b"10.0.0.1" in response.resources[0].value


def streams(server):
    return json.loads(server.get("/debug/clients")[1])


def request(chance):
    """Returns a random request, anything from almost valid to noise."""
    names = [
        "web.shop:80",
        "*",
        "",
        "web",
        "a.b.c:d",
        "\x00",
        "x" * chance.randrange(300),
        "web.shop.svc:80",
        "é" * 9,
    ]
    message = discovery_pb2.DiscoveryRequest(
        type_url=chance.choice([*(kind.value for kind in ResourceType), "type.googleapis.com/other"])
        if chance.random() > 0.002
        else "",
        resource_names=chance.choices(names, k=chance.randrange(8)),
        response_nonce=chance.choice(["", "1", "2", "stale", "\n"]),
        version_info=chance.choice(["", "x", "0" * 64]),
    )
    if chance.random() < 0.2:
        message.error_detail.message = chance.choice(["no", "\x1b[31m", "y" * 5000])
    if chance.random() < 0.2:
        message.node.id = chance.choice(["", "n", "z" * 1000])
        message.node.metadata.update({"NAMESPACE": chance.choice(["", "shop", 7, {}])})
    encoded = bytearray(message.SerializeToString())
    if chance.random() < 0.02 and encoded:
        for _ in range(chance.randrange(1, 4)):
            encoded[chance.randrange(len(encoded))] = chance.randrange(256)
    return bytes(encoded)


@pytest.mark.timeout(7200)
def test_messages(server, chance):
    sent = 0
    total = round(1_000_000 * SCALE)
    with grpc.insecure_channel(server.address) as channel:
        while sent < total:
            messages = [request(chance) for _ in range(MESSAGES_A_STREAM)]
            sent += len(messages)
            try:
                for _ in stream(channel, messages):
                    pass
            except grpc.RpcError as error:
                # A request that cannot be parsed, or has no type, ends its stream.
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
            if sent % (MESSAGES_A_STREAM * 250) == 0:
                assert serves(server)
                print(f"{sent} of {total} messages", flush=True)
    assert serves(server)
    wait_until("all streams to be removed", lambda: streams(server) == [])


def mutated(chance, item):
    """Returns a Kubernetes object with random parts replaced, removed or repeated."""
    if chance.random() < 0.15:
        return chance.choice([None, True, -1, 1 << 70, 0.5, "", "text", [], {}, [None], {"a": 1}])
    if isinstance(item, dict):
        return {name: mutated(chance, value) for name, value in item.items() if chance.random() > 0.05}
    if isinstance(item, list):
        return [mutated(chance, value) for value in item for _ in range(chance.choice([1, 1, 1, 0, 2]))]
    return item


@pytest.mark.timeout(7200)
def test_objects(server, api, chance):
    total = round(100_000 * SCALE)
    kinds = ["Service", "EndpointSlice"]
    wait_until("both kinds to be watched", lambda: all(api.watchers(kind) for kind in kinds))
    for number in range(total):
        name = f"bad-{number % 500}"
        good = chance.choice([service(name), endpoint_slice("10.1.1.1", "fd00::1", name=name, owner=name)])
        # The events stay valid: an invalid one makes the reflector list again and skip those that follow.
        item = {field: mutated(chance, value) for field, value in good.items() if chance.random() > 0.05}
        # The metadata stays valid, so that no mutated object replaces the one that must stay served. Its version rises:
        # an event that is older than the last list would be ignored.
        item["metadata"] = {**good["metadata"], "resourceVersion": api.next_version()}
        wait_until("a watch", functools.partial(api.watchers, good["kind"]))
        api.send(good["kind"], {"type": chance.choice(["ADDED", "MODIFIED", "DELETED"]), "object": item})
        if number % 5000 == 0:
            assert serves(server)
            print(f"{number} of {total} objects", flush=True)
    api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
    wait_until("the last good change", lambda: "10.0.0.2:8080" in server.get("/debug/services")[1])
    assert serves(server)


FRAGMENTS = [
    *["(", ")", "(?:", "(?=", "(?<=", "(?P<n>", "(?<n>", "(?i)", "(?P=n)", "(?#", "(?"],
    *[
        "[",
        "]",
        "[^",
        "[z-a]",
        "[[:word:]]",
        "[[:no:]]",
        "{2}",
        "{1000}",
        "{1001}",
        "{,3}",
        "{2,1}",
        "*",
        "+?",
        "??",
    ],
    *[
        "\\",
        "\\Q",
        "\\E",
        "\\C",
        "\\pN",
        "\\p{Greek}",
        "\\1",
        "\\z",
        "\\Z",
        "\\x{110000}",
        "\\x{41}",
        "\\K",
        "\\b",
    ],
    *[
        "a",
        "greet",
        ".",
        ".*",
        "|",
        "^",
        "$",
        "/",
        "-",
        " ",
        "é",
        "\ud800",
        "\x00",
        "\n",
        "(a?){500}",
        "x" * 500,
    ],
]


def expression(chance):
    """Returns a random regular expression, most of them invalid in RE2 or refused by some of its ports."""
    return "".join(chance.choices(FRAGMENTS, k=chance.randrange(1, 8)))


def grpc_route(chance, name):
    """Returns a random GRPCRoute, anything from almost valid to noise."""
    regex = {"type": "RegularExpression"}

    def match():
        method = {"service": expression(chance), "method": expression(chance)}
        return chance.choice(
            [
                {"method": {**regex, **method}},
                {"method": {**regex, "method": expression(chance)}},
                {"method": {"type": "Exact", **method}},
                {"method": {"service": "a.B", "method": "C"}, "headers": [{"name": "x-a", "value": "1"}]},
                {
                    "headers": [
                        {**regex, "name": chance.choice(["X-a", "a-bin", "é"]), "value": expression(chance)}
                    ]
                },
            ]
        )

    def backend():
        return {
            "name": chance.choice(["web", "api", "gone", "\n", "y" * 500]),
            "port": chance.choice([80, 80, 81, 0]),
            "weight": chance.choice([1, 1, 0, 1_000_000, -1]),
            **chance.choice([{}, {}, {}, {"filters": [{"type": "RequestMirror"}]}, {"kind": "Pod"}]),
        }

    good = {
        "parentRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": chance.choice(["web", "api", "gone"]),
                "namespace": "shop",
            }
        ],
        "rules": [
            {
                "name": chance.choice(["a", "b"]),
                "matches": [match() for _ in range(chance.randrange(3))],
                "backendRefs": [backend() for _ in range(chance.randrange(3))],
            }
            for _ in range(chance.randrange(1, 4))
        ],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": chance.choice(["shop", "clients"])},
        "spec": mutated(chance, good) if chance.random() < 0.3 else good,
    }


def check_rules(rules):
    """Checks what clients would refuse."""
    for rule in rules:
        sent = [header.value for header in rule.match.headers if header.is_regex]
        sent += [rule.match.path.value] * (rule.match.path.type is PathType.REGEX)
        for pattern in sent:
            re2.compile(pattern)
        assert all(header.name == header.name.lower() for header in rule.match.headers)
        assert rule.backends
        assert all(backend.weight > 0 for backend in rule.backends)
        for backend in rule.backends:
            if isinstance(backend.target, Unavailable):
                assert len(str(backend.target)) <= 400
                assert str(backend.target).isascii()
                assert parse_unavailable(str(backend.target)) == backend.target
            else:
                assert backend.target == PortName(ServiceName("shop", backend.target.service.name), 80)


def test_routes(chance):
    ports = (Port("grpc", 80, is_grpc=True),)
    names = [ServiceName("shop", name) for name in ("web", "api")]
    services = {name: Service(name, ports) for name in names}
    routes = RouteAssembler(services, lambda *_: CallPolicy())
    total = round(100_000 * SCALE)
    served = 0
    with structlog.testing.capture_logs() as logs:
        for number in range(total):
            try:
                item = convert(grpc_route(chance, f"route-{number % 20}"))
            except MalformedObjectError:
                continue
            routes.put(key(item), chance.choice([item, item, item, None]))
            for entry, changed in routes.flush().items():
                if entry.table is CONSUMED:
                    assert entry.key.service in services
                    continue
                assert entry.table is ROUTES
                assert entry.key.port.service in services
                if changed is not None:
                    assert changed
                    check_rules(changed)
                    served += 1
            for place in routes.take_restated():
                status = routes.status(place)
                for condition in (
                    (each for entry in status.entries for each in entry.conditions) if status else ()
                ):
                    assert condition.message.isascii()
                    assert condition.status or condition.type != "PartiallyInvalid"
            assert not [line for line in logs if line["log_level"] == "error"]
            logs.clear()
    print(f"{served} entries of {total} routes")
    assert served > total / 10


def resident(pid):
    """Returns the resident memory of a process in MiB."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.timeout(7200)
def test_reconnects(server):
    def reconnect(times):
        for _ in range(times):
            assert serves(server)
        wait_until("all streams to be removed", lambda: streams(server) == [])

    def descriptors():
        return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))

    times = round(10_000 * SCALE)
    reconnect(max(100, times // 5))
    memory, files = resident(server.pid), descriptors()
    reconnect(times)
    wait_until("file descriptors to be closed", lambda: descriptors() <= files + 2)
    grown = resident(server.pid) - memory
    print(f"{times} connections: memory {memory:.1f} MiB, then {grown:+.1f} MiB")
    assert grown < 10
    assert json.loads(server.get("/debug/resources")[1]) == []
