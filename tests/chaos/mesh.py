"""A small mesh on this machine: xds-servers and hello-servers as processes, and objects as Kubernetes writes them."""

import json
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos.load import Load
from tests.discovery.api_stub import ApiStub, endpoint_slice, service
from tests.local import running
from tests.local.running import Running
from tests.local.xds_server import XdsServer

SERVICE = "hello-server"
NAMESPACE = "default"
TARGET = f"xds:///{SERVICE}.{NAMESPACE}:50051"

DRAIN_DELAY = 5.0
"""As in the manifests."""
GRACE = 30.0
"""terminationGracePeriodSeconds of the manifests."""
LATE = 1.0
"""Seconds from a pod's SIGTERM to the endpoint that says so: Kubernetes does both at once, in no order."""


class Pod(Running):
    """A hello-server, and its part of the EndpointSlices."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = running.free_port()
        settings = {"PORT": str(self.port), "HOSTNAME": name, "POD_IP": "127.0.0.1", "LOG_FORMAT": "json"}
        super().__init__(
            SERVICE, env=running.environment(DRAIN_DELAY=str(DRAIN_DELAY), GRPC_VERBOSITY="NONE", **settings)
        )

    def endpoint_slice(self, *, ready: bool) -> dict[str, Any]:
        """Make the slice of a pod that is ready, or of one that terminates and serves still.

        Each pod has a slice of its own, as each has a port of its own here.
        """
        conditions = {"ready": ready, "serving": True, "terminating": not ready}
        written: dict[str, Any] = endpoint_slice(
            name=self.name,
            owner=SERVICE,
            namespace=NAMESPACE,
            endpoints=[{"addresses": ["127.0.0.1"], "conditions": conditions}],
            ports=[{"name": "grpc", "port": self.port, "protocol": "TCP"}],
        )
        return written


class Deployment:
    """Replicas of hello-server, scaled, restarted and deleted as Kubernetes does it."""

    def __init__(self, api: ApiStub) -> None:
        self.pods: list[Pod] = []
        self._api = api
        self._made = 0
        self._leaving: list[threading.Thread] = []
        self._ends: list[tuple[str, int, float]] = []

    @property
    def names(self) -> set[str]:
        return {pod.name for pod in self.pods}

    def scale(self, replicas: int) -> None:
        """New pods all at once, or the newest away all at once; return when the new ones are ready."""
        surplus = self.pods[replicas:]
        added = [self._start() for _ in range(replicas - len(self.pods))]
        for pod in surplus:
            self.delete(pod)
        for pod in added:
            self._make_ready(pod)

    def restart(self) -> None:
        """Replace pod by pod, a new one before an old one: maxSurge 1, maxUnavailable 0."""
        for old in self.pods[:]:
            self._make_ready(self._start())
            self.delete(old)

    def replace(self, pod: Pod) -> None:
        """Delete a pod; its replacement starts at the same time and is ready when it is."""
        replacement = self._start()
        self.delete(pod)
        self._make_ready(replacement)

    def delete(self, pod: Pod) -> None:
        """Delete a pod gracefully; what follows goes on by itself."""
        self.pods.remove(pod)
        thread = threading.Thread(target=self._end, args=(pod,))
        self._leaving.append(thread)
        thread.start()

    def wait_until_gone(self) -> None:
        """Wait until the pods that were deleted have ended, as they should."""
        for thread in self._leaving:
            thread.join()
        assert [end for end in self._ends if end[1] != 0 or end[2] > GRACE] == []

    def close(self) -> None:
        self.scale(0)
        self.wait_until_gone()

    def _start(self) -> Pod:
        self._made += 1
        pod = Pod(f"{SERVICE}-{self._made}")
        self.pods.append(pod)
        return pod

    def _make_ready(self, pod: Pod) -> None:
        pod.wait_for_line('"serving"')
        self._api.apply(pod.endpoint_slice(ready=True))

    def _end(self, pod: Pod) -> None:
        with pod:
            began = time.monotonic()
            pod.send(signal.SIGTERM)
            time.sleep(LATE)
            self._api.apply(pod.endpoint_slice(ready=False))
            code = pod.wait()
            self._ends.append((pod.name, code, time.monotonic() - began))
        self._api.delete("EndpointSlice", NAMESPACE, pod.name)


class Mesh:
    """The API server's stand-in, a Deployment, and an xds-server that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.api = ApiStub()
        self.api.apply(
            service(
                SERVICE,
                namespace=NAMESPACE,
                ports=[{"name": "grpc", "port": 50051, "protocol": "TCP", "appProtocol": "grpc"}],
            )
        )
        self.hello = Deployment(self.api)
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
        self.api.fault = self.api.watch_fault = None
        self.api.stop()

    def start_xds_server(self, **settings: str) -> XdsServer:
        """Start an xds-server (`LISTEN`: where an earlier one was) and wait until it is ready."""
        server = XdsServer(None, KUBECONFIG=str(self._kubeconfig), GRPC_VERBOSITY="NONE", **settings)
        self._servers.append(server)
        server.wait_until_ready()
        return server

    def start_again(self, server: XdsServer) -> XdsServer:
        """Start an xds-server where one was that has ended."""
        return self.start_xds_server(LISTEN=server.address, ADMIN_LISTEN=server.admin)

    def load(self, *xds_servers: str) -> Load:
        """Clients of these xDS servers, the first before the others."""
        return Load(bootstrap(*xds_servers), TARGET)


def bootstrap(*addresses: str) -> str:
    """Write a bootstrap as in k8s/components/xds-client, with these servers, the first before the others."""
    features = ["xds_v3", "ignore_resource_deletion"]
    servers = [
        {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": features}
        for address in addresses
    ]
    node = {"id": "chaos.default", "metadata": {"NAMESPACE": NAMESPACE}, "locality": {}}
    return json.dumps({"xds_servers": servers, "node": node})


def kill(server: XdsServer) -> None:
    """End it without a word, as a node does that loses power."""
    server.send(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL


def age(server: XdsServer) -> float:
    """Tell how old the state of a server is, as its metrics say."""
    _, text = server.get("/metrics")
    [line] = [line for line in text.splitlines() if line.startswith("discovery_age_seconds ")]
    return float(line.split()[1])
