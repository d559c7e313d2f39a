"""The fixture that the package offers to tests of other projects."""

import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.waiting import wait_until
from xds_server.errors import MalformedObjectError, RefusedError
from xds_server.testing import Mesh

TARGET = "hello.default:50051"
METHOD = "/test.Greeter/Name"
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: hello}}
spec:
  parentRefs: [{{group: "", kind: Service, name: hello}}]
  rules: [{{backendRefs: [{{name: {backend}, port: 50051}}]}}]
"""
POLICY = """
apiVersion: proxyless-grpc-lb.dev/v1alpha1
kind: GRPCBackendPolicy
metadata: {name: hello}
spec:
  targetRefs: [{group: "", kind: Service, name: hello}]
  fault: {abort: {code: RESOURCE_EXHAUSTED, percent: 100}}
"""


@pytest.fixture
def servers() -> Iterator[list[str]]:
    """The addresses of three servers, each of which answers with its own."""
    with ExitStack() as stack:
        yield [_serve(stack) for _ in range(3)]


def _serve(stack: ExitStack) -> str:
    server = grpc.server(ThreadPoolExecutor(2))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"

    def name(_: bytes, __: grpc.ServicerContext) -> bytes:
        return address.encode()

    handlers: dict[str, Any] = {"Name": grpc.unary_unary_rpc_method_handler(name)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", handlers),))
    server.start()
    stack.callback(lambda: server.stop(0).wait())
    return address


@pytest.fixture
def channel(xds_mesh: Mesh) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"xds:///{TARGET}") as channel:
        yield channel


def calls(channel: grpc.Channel, number: int = 6) -> Counter[str]:
    """How often each server answers, or a call fails with each code."""
    method: Any = channel.unary_unary(METHOD)
    found: Counter[str] = Counter()
    for _ in range(number):
        try:
            found[method(b"", timeout=10, wait_for_ready=True).decode()] += 1
        except grpc.RpcError as error:
            found[error.code().name] += 1
    return found


def alike(addresses: list[str], number: int = 6) -> Counter[str]:
    return Counter(dict.fromkeys(addresses, number // len(addresses)))


def test_calls_go_round_all_endpoints_and_follow_changes(
    xds_mesh: Mesh, channel: grpc.Channel, servers: list[str]
) -> None:
    xds_mesh.serve({TARGET: servers[:2]})
    wait_until("two servers to answer", lambda: calls(channel) == alike(servers[:2]))
    xds_mesh.serve({TARGET: servers})
    wait_until("three servers to answer", lambda: calls(channel) == alike(servers))


def test_a_route_sends_calls_to_another_service(
    xds_mesh: Mesh, channel: grpc.Channel, servers: list[str]
) -> None:
    xds_mesh.serve({TARGET: servers[:1], "v2.default:50051": servers[1:]})
    wait_until("hello to answer", lambda: calls(channel) == alike(servers[:1]))
    xds_mesh.apply(ROUTE.format(backend="v2"))
    wait_until("v2 to answer", lambda: calls(channel) == alike(servers[1:]))


def test_a_policy_counts(xds_mesh: Mesh, channel: grpc.Channel, servers: list[str]) -> None:
    xds_mesh.serve({TARGET: servers})
    xds_mesh.apply(POLICY)
    wait_until("calls to be aborted", lambda: calls(channel) == Counter(RESOURCE_EXHAUSTED=6))


def test_nothing_is_left_of_other_tests(xds_mesh: Mesh, channel: grpc.Channel, servers: list[str]) -> None:
    xds_mesh.serve({TARGET: servers})
    wait_until("all to answer", lambda: calls(channel) == alike(servers))
    xds_mesh.clear()
    xds_mesh.serve({TARGET: servers[:1]})
    wait_until("one to answer", lambda: calls(channel) == alike(servers[:1]))


def test_a_service_has_the_ports_that_are_named(xds_mesh: Mesh) -> None:
    xds_mesh.serve({"hello.default:1": [], "hello.default:2": []})
    xds_mesh.serve({"hello.default:2": []})
    xds_mesh.serve({"v2.default:50051": []})
    with pytest.raises(RefusedError, match=r"GRPCRoute default/hello.*port"):
        xds_mesh.apply(ROUTE.format(backend="v2").replace("name: hello}]", "name: hello, port: 1}]"))


def test_what_is_not_used_is_an_error_that_says_why(xds_mesh: Mesh) -> None:
    xds_mesh.serve({TARGET: []})
    with pytest.raises(RefusedError, match=r"GRPCRoute default/hello: .*gone.*BackendNotFound"):
        xds_mesh.apply(ROUTE.format(backend="gone"))
    with pytest.raises(RefusedError, match=r"GRPCBackendPolicy default/hello: .*percent"):
        xds_mesh.apply(POLICY.replace("100", "101"))


@pytest.mark.parametrize("text", ["", "a: b", "kind: [", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}"])
def test_a_text_without_objects_is_an_error(xds_mesh: Mesh, text: str) -> None:
    with pytest.raises(MalformedObjectError):
        xds_mesh.apply(text)


@pytest.mark.parametrize(
    "endpoints", [{"hello:50051": []}, {TARGET: ["localhost:1"]}, {TARGET: ["127.0.0.1"]}, {"": []}]
)
def test_a_name_or_an_address_of_another_form_is_an_error(
    xds_mesh: Mesh, endpoints: dict[str, list[str]]
) -> None:
    with pytest.raises(ValueError, match=r"like|does not appear"):
        xds_mesh.serve(endpoints)


def test_pytest_finds_the_fixture_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""\
            import json, os

            def test_it(xds_mesh):
                xds_mesh.serve({"hello.default:50051": ["127.0.0.1:1"]})
                bootstrap = json.loads(os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"])
                assert bootstrap["xds_servers"][0]["server_uri"] == xds_mesh.address
            """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
