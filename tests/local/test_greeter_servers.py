"""hello-server and howdy-server as processes: their answers, start and stop."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from greeter.v1.greeter_pb2 import SayHelloRequest, SayHelloResponse
from greeter.v1.greeter_pb2_grpc import GreeterStub
from tests.support import running
from tests.support.running import Running
from tests.support.waiting import DEADLINE, wait_until

SERVICES = ("", "greeter.v1.Greeter")


class Server(Running):
    """A greeter on any free port."""

    def __init__(self, program: str = "hello-server", *, drain_delay: float = 0.1, **settings: str) -> None:
        defaults = {
            "PORT": "0",
            "DRAIN_DELAY": str(drain_delay),
            "HOSTNAME": "test-host",
            "POD_IP": "127.0.0.7",
        }
        super().__init__(program, env=running.environment(**(defaults | settings)))

    @property
    def port(self) -> int:
        self.wait_for_line('"serving"')
        return next(int(record["port"]) for record in self.records if record["event"] == "serving")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def greet(port: int) -> SayHelloResponse:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return GreeterStub(channel).SayHello(SayHelloRequest(name="you"), timeout=DEADLINE)


def health(port: int) -> list[str]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        checks = [
            HealthStub(channel).Check(HealthCheckRequest(service=each), timeout=DEADLINE) for each in SERVICES
        ]
    return [HealthCheckResponse.ServingStatus.Name(check.status) for check in checks]


@pytest.mark.parametrize(("program", "greeting"), [("hello-server", "Hello"), ("howdy-server", "Howdy")])
def test_it_greets_and_says_who_greeted(program: str, greeting: str) -> None:
    with Server(program) as server:
        reply = greet(server.port)
    assert reply.message == f"{greeting} you from host test-host (127.0.0.7)"
    assert (reply.hostname, reply.ip) == ("test-host", "127.0.0.7")


def test_the_host_is_found_out() -> None:
    with Server(HOSTNAME="", POD_IP="") as server:
        assert greet(server.port).hostname == socket.gethostname()


@pytest.mark.parametrize(("program", "port"), [("hello-server", 50051), ("howdy-server", 50052)])
def test_help_names_the_settings_and_defaults(program: str, port: int) -> None:
    result = running.run(program, "--help", env=running.environment(COLUMNS="120"))
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    assert f"[PORT, default {port}]" in text
    for variable in ("GREETING", "DRAIN_DELAY", "HOSTNAME", "POD_IP", "LOG_FORMAT", "LOG_LEVEL"):
        assert f"[{variable}" in text


def test_health_is_serving_overall_and_for_the_greeter(server: Server) -> None:
    assert health(server.port) == ["SERVING", "SERVING"]


def test_reflection_describes_the_api(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"greeter.v1.Greeter", "grpc.health.v1.Health"} <= set(database.get_services())
        greeter = DescriptorPool(database).FindServiceByName("greeter.v1.Greeter")
        assert [method.name for method in greeter.methods] == ["SayHello"]


def test_after_sigterm_it_is_not_healthy_at_once_but_still_answers() -> None:
    with Server(drain_delay=3600) as server:
        port = server.port
        server.send(signal.SIGTERM)
        wait_until("health NOT_SERVING", lambda: health(port) == ["NOT_SERVING", "NOT_SERVING"])
        assert greet(port).hostname == "test-host"
        server.send(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM, "a second signal ends it at once"


def test_after_sigterm_and_the_drain_delay_it_ends_well(server: Server) -> None:
    port = server.port
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert [record["event"] for record in server.records] == [
        "serving",
        "stopping",
        "not serving any more, still answering",
        "stopped",
    ]
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_after_sigint_nobody_waits_for_the_drain_delay() -> None:
    with Server(drain_delay=3600) as server:
        assert server.port
        server.send(signal.SIGINT)
        assert server.wait() == 0


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = running.run("hello-server", "--port", str(port), env=running.environment(LOG_FORMAT="text"))
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.count("\n") == 1
    assert (
        f"hello-server: cannot listen on [::]:{port}: port {port} is in use; end the program" in result.stdout
    )


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"PORT": "abc"}, "PORT=abc: must be an integer between 0 and 65535"),
        ({"DRAIN_DELAY": "soon"}, "DRAIN_DELAY=soon: must be a number between 0 and 86400"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT=xml: must be auto, text or json"),
        ({"GREETING": "\udcff"}, r"GREETING=\udcff: must be UTF-8"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, str], complaint: str) -> None:
    result = running.run("hello-server", env=running.environment(**settings))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"hello-server: error: {complaint}\n"


def test_a_log_that_nobody_reads_any_more_does_not_stop_it() -> None:
    port = running.free_port()
    environment: dict[str, Any] = running.environment(PORT=str(port), DRAIN_DELAY="0", LOG_LEVEL="DEBUG")
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen([running.BIN / "hello-server"], env=environment, stdout=writer) as server:
        os.close(writer)
        assert greet_when_up(port).message
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0


def greet_when_up(port: int) -> SayHelloResponse:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return GreeterStub(channel).SayHello(SayHelloRequest(), timeout=DEADLINE, wait_for_ready=True)
