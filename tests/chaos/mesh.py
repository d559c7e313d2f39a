"""A small mesh on this machine: xds-servers and greeters as processes, and objects as Kubernetes writes them."""

import json
import random
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.chaos.load import Client, Load
from tests.support import running
from tests.support.api_stub import ApiStub, endpoint_slice, service
from tests.support.running import Running
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

NAMESPACE = "default"
NAME = f"hello-server.{NAMESPACE}:50051"
TARGET = f"xds:///{NAME}"
BIG = f"big.{NAMESPACE}:80"
HOWDY_TARGET = f"xds:///howdy-server.{NAMESPACE}:50051"

GRACE = 30.0
"""terminationGracePeriodSeconds of the manifests."""
LATE = 1.0
"""Seconds from a pod's SIGTERM to the update of its endpoint; Kubernetes does both at once, in no defined order."""


@dataclass
class Machine:
    """The environment of programs that start from now on.

    Attributes:
        log: The file descriptor of their logs, or PIPE.
        environment: Environment variables in addition to their settings.
    """

    log: int = subprocess.PIPE
    environment: dict[str, str] = field(default_factory=dict)


class Pod(Running):
    """A greeter server with default settings, and its EndpointSlice."""

    def __init__(self, service: str, name: str, machine: Machine) -> None:
        self.service = service
        self.name = name
        self.port = running.free_port()
        settings = {"PORT": str(self.port), "HOSTNAME": name, "POD_IP": "127.0.0.1", "LOG_FORMAT": "json"}
        environment = running.environment(GRPC_VERBOSITY="NONE", **settings, **machine.environment)
        super().__init__(service, env=environment, log=machine.log)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_until_healthy(self) -> None:
        """Waits until gRPC health succeeds, as the kubelet's readiness probe does."""
        with grpc.insecure_channel(self.address) as channel:
            check = partial(HealthStub(channel).Check, HealthCheckRequest(), wait_for_ready=True)
            wait_until(f"{self.name} to be healthy", lambda: self._ended() or check(timeout=60).status == 1)

    def endpoint_slice(self, *, ready: bool) -> dict[str, Any]:
        """Returns the slice of a pod that is ready, or of one that terminates and is still serving.

        Each pod has its own slice, as each pod has its own port here.
        """
        conditions = {"ready": ready, "serving": True, "terminating": not ready}
        written: dict[str, Any] = endpoint_slice(
            name=self.name,
            owner=self.service,
            namespace=NAMESPACE,
            endpoints=[{"addresses": ["127.0.0.1"], "conditions": conditions}],
            ports=[{"name": "grpc", "port": self.port, "protocol": "TCP"}],
        )
        return written


class Deployment:
    """Replicas of a greeter server and their Service, scaled, restarted and deleted as Kubernetes does it."""

    def __init__(self, api: ApiStub, machine: Machine, service_name: str) -> None:
        self.pods: list[Pod] = []
        self._machine = machine
        self._service = service_name
        self._api = api
        ports = [{"name": "grpc", "port": 50051, "protocol": "TCP", "appProtocol": "grpc"}]
        api.apply(service(service_name, namespace=NAMESPACE, ports=ports))
        self._made = 0
        self._leaving: list[threading.Thread] = []
        self._ends: list[tuple[str, int, float]] = []

    @property
    def names(self) -> set[str]:
        return {pod.name for pod in self.pods}

    def scale(self, replicas: int) -> None:
        """Adds pods, or deletes the newest ones, all at once; returns when the new ones are ready."""
        surplus = self.pods[replicas:]
        added = [self._start() for _ in range(replicas - len(self.pods))]
        for pod in surplus:
            self.delete(pod)
        for pod in added:
            self._make_ready(pod)

    def restart(self) -> None:
        """Replaces the pods one by one, with maxSurge 1 and maxUnavailable 0."""
        for old in self.pods[:]:
            self._make_ready(self._start())
            self.delete(old)

    def replace(self, pod: Pod) -> None:
        """Deletes a pod and starts its replacement at the same time; returns when that is ready."""
        replacement = self._start()
        self.delete(pod)
        self._make_ready(replacement)

    def delete(self, pod: Pod) -> None:
        """Deletes a pod gracefully, in the background."""
        self.pods.remove(pod)
        thread = threading.Thread(target=self._end, args=(pod,))
        self._leaving.append(thread)
        thread.start()

    def wait_until_gone(self) -> None:
        """Waits until the deleted pods have exited, and asserts that all did with code 0 in their grace period."""
        for thread in self._leaving:
            thread.join()
        assert [end for end in self._ends if end[1] != 0 or end[2] > GRACE] == []

    def close(self) -> None:
        """Stops all pods, without their drain delay, as no client calls any more."""
        for pod in self.pods:
            with pod:
                pod.send(signal.SIGINT)
                assert pod.wait() == 0
        self.wait_until_gone()

    def _start(self) -> Pod:
        self._made += 1
        pod = Pod(self._service, f"{self._service}-{self._made}", self._machine)
        self.pods.append(pod)
        return pod

    def _make_ready(self, pod: Pod) -> None:
        pod.wait_until_healthy()
        self._api.apply(pod.endpoint_slice(ready=True))

    def _end(self, pod: Pod) -> None:
        with pod:
            began = time.monotonic()
            pod.send(signal.SIGTERM)
            time.sleep(LATE)  # the fault: the EndpointSlice controller hears of the end only now
            self._api.apply(pod.endpoint_slice(ready=False))
            code = pod.wait()
            self._ends.append((pod.name, code, time.monotonic() - began))
        self._api.delete("EndpointSlice", NAMESPACE, pod.name)


class Mesh:
    """A stub of the API server, two Deployments, and xds-servers that can be killed and restarted."""

    def __init__(self, directory: Path) -> None:
        self.api = ApiStub()
        self.api.apply(service("big", namespace=NAMESPACE))
        self.machine = Machine()
        self.hello = Deployment(self.api, self.machine, "hello-server")
        self.howdy = Deployment(self.api, self.machine, "howdy-server")
        self._kubeconfig = self.api.kubeconfig(directory / "kubeconfig", token="secret")
        self._servers: list[XdsServer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.__exit__(kind, error, trace)
        self.hello.close()
        self.howdy.close()
        self.api.fault = self.api.watch_fault = None
        self.api.stop()

    def start_xds_server(self, **settings: str) -> XdsServer:
        """Starts an xds-server and waits until it is ready."""
        settings = self.machine.environment | {"KUBECONFIG": str(self._kubeconfig)} | settings
        server = XdsServer(None, self.machine.log, GRPC_VERBOSITY="NONE", **settings)
        self._servers.append(server)
        server.wait_until_ready()
        return server

    def start_again(self, server: XdsServer) -> XdsServer:
        """Starts an xds-server with the addresses of one that has exited."""
        return self.start_xds_server(LISTEN=server.address, ADMIN_LISTEN=server.admin)

    def start_client(self, program: str, xds_bootstrap: str, target: str) -> Running:
        """Starts a greeter client that calls often."""
        settings = {"TARGET": target, "INTERVAL": "0.02", "GRPC_XDS_BOOTSTRAP_CONFIG": xds_bootstrap}
        environment = running.environment(**settings, **self.machine.environment)
        return Running(program, env=environment, log=self.machine.log)

    def change_big_service(self, chance: random.Random) -> None:
        """Changes a service with so many endpoints that a response fills every buffer."""
        pods = [f"10.1.{high}.{low}" for high in range(8) for low in range(1, 251)]
        one = endpoint_slice(*chance.sample(pods, 1_900), name="big-1", owner="big", namespace=NAMESPACE)
        self.api.apply(one)

    def load(self, *xds_servers: str, target: str = TARGET) -> Load:
        """Returns clients whose bootstrap lists these xDS servers in this order."""
        return Load(lambda: Client(bootstrap(*xds_servers), target))


def bootstrap(*addresses: str) -> str:
    """Returns a bootstrap as in k8s/components/xds-client, with these servers in this order."""
    features = ["xds_v3", "ignore_resource_deletion"]
    servers = [
        {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": features}
        for address in addresses
    ]
    node = {"id": "chaos.default", "metadata": {"NAMESPACE": NAMESPACE}, "locality": {}}
    return json.dumps({"xds_servers": servers, "node": node})


def kill(server: XdsServer) -> None:
    """Kills a server with SIGKILL, like a crash."""
    server.send(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL


def metric(server: XdsServer, name: str) -> float:
    """Returns a metric of a server, summed over its labels."""
    _, text = server.get("/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.split("{")[0].split()[0] == name)


def age(server: XdsServer) -> float:
    """Returns the age of a server's state in seconds, from its metrics."""
    return metric(server, "discovery_age_seconds")


def streams(server: XdsServer) -> int:
    """Returns the number of a server's streams."""
    return round(metric(server, "xds_streams"))
