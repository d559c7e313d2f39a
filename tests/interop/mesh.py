"""A real xds-server with a folder of objects, and real greeters, which scenarios share."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support import objects, running
from tests.support.running import Running
from tests.support.xds_server import XdsServer

SERVICE = "hello-server"
NAME = f"{SERVICE}.default:50051"
TARGET = f"xds:///{NAME}"


class Greeter(Running):
    """A hello-server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = running.free_port()
        settings = {"PORT": str(self.port), "HOSTNAME": name, "POD_IP": "127.0.0.1", "DRAIN_DELAY": "0"}
        super().__init__(SERVICE, env=running.environment(LOG_FORMAT="json", **settings))


class Mesh:
    """An xds-server and its folder of objects."""

    def __init__(self, folder: Path, greeters: Sequence[Greeter]) -> None:
        self.greeters = greeters
        self.folder = folder
        self.server = XdsServer(folder, GRPC_VERBOSITY="NONE", LOAD_REPORT_INTERVAL="1")
        self.nacks = 0
        self._servers = [self.server]

    def __enter__(self) -> Self:
        self.server.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.__exit__(kind, error, trace)

    def serve(self, zones: Mapping[str, Sequence[Greeter]], service: str = SERVICE) -> None:
        """Sets the endpoints of a Service to these greeters, by zone, in one change."""
        found = [objects.service(service)]
        for zone, greeters in zones.items():
            for greeter in greeters:
                # One slice for each greeter, as each has its own port here.
                fields: dict[str, Any] = objects.endpoints("127.0.0.1", port=greeter.port)
                fields["endpoints"][0]["zone"] = zone
                found.append(objects.endpoint_slice(f"{service}-{greeter.name}", service, **fields))
        objects.write(self.folder / f"{service}.yaml", *found)

    def delete(self, service: str = SERVICE) -> None:
        """Deletes a Service with its endpoints."""
        (self.folder / f"{service}.yaml").unlink()

    def stop_server(self) -> None:
        """Stops the xds-server."""
        self._count_nacks()
        self.server.__exit__(None, None, None)

    def start_server(self) -> None:
        """Starts an xds-server with the address of the stopped one."""
        old = self.server
        self.server = XdsServer(
            self.folder,
            LISTEN=old.address,
            ADMIN_LISTEN=old.admin,
            DEBUG_LISTEN=old.debug,
            GRPC_VERBOSITY="NONE",
        )
        self._servers.append(self.server)
        self.server.wait_until_ready()

    def metric(self, name: str) -> float:
        """Returns a metric, summed over its labels."""
        _, text = self.server.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def labelled(self, name: str, **labels: str) -> float:
        """Returns a metric with these labels; 0 if there is none."""
        _, text = self.server.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )

    def assert_no_nacks(self) -> None:
        """Asserts that no client has sent a NACK."""
        self._count_nacks()
        assert self.nacks == 0, self.server.warnings("client rejected a response")

    def bootstrap(
        self,
        node_id: str = "interop",
        *,
        scheme: str = "",
        namespace: str = "default",
        zone: str = "",
        node_name: str = "",
    ) -> str:
        """Returns a bootstrap as in docs/your-services.md."""
        metadata = {"NAMESPACE": namespace} | ({"NODE_NAME": node_name} if node_name else {})
        return json.dumps(
            {
                "xds_servers": [
                    {
                        "server_uri": scheme + self.server.address,
                        "channel_creds": [{"type": "insecure"}],
                        "server_features": ["xds_v3", "ignore_resource_deletion"],
                    }
                ],
                "node": {"id": node_id, "metadata": metadata, "locality": {"zone": zone} if zone else {}},
            }
        )

    def _count_nacks(self) -> None:
        self.nacks += round(self.metric("xds_nacks_total"))
