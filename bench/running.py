"""Starts control planes and the load generator, and reads the resource usage of processes."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import objects, running
from tests.support.running import Running
from tests.support.xds_server import XdsServer

ROOT = Path(__file__).parents[1]
BUILD = ROOT / ".build" / "bench"
FILES_NEEDED = 12_000
"""Open files of one process: 5,000 connections and a margin."""
MARKER = "198.18.0.0"
"""The address in a file that the load generator replaces."""
SLICE_SIZE = 100


def has_go() -> bool:
    """Returns whether Go is installed, which the load generator and go-control-plane need."""
    return shutil.which("go") is not None


def build() -> None:
    """Builds the programs in bench/go."""
    subprocess.run(["go", "build", "-C", str(ROOT / "bench/go"), "-o", f"{BUILD}/", "./..."], check=True)


def build_for_image(name: str, path: Path) -> None:
    """Builds one program of bench/go to run in a container."""
    command = ["go", "build", "-C", str(ROOT / "bench/go"), "-o", str(path), f"./{name}"]
    subprocess.run(command, check=True, env=os.environ | {"GOOS": "linux", "CGO_ENABLED": "0"})


def raise_file_limit() -> str:
    """Raises the limit of open files as far as needed and allowed.

    Returns:
        A warning if the limit is too low for the largest runs, else "".
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_NEEDED if hard == resource.RLIM_INFINITY else min(FILES_NEEDED, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted >= FILES_NEEDED:
        return ""
    return f"at most {hard} open files are allowed (ulimit -Hn): runs with more streams fail"


@dataclass(frozen=True)
class Usage:
    """The resources that a process has used so far."""

    cpu: float
    """Seconds."""
    memory: float
    """MiB, resident."""
    threads: int


def usage(pid: int) -> Usage:
    """Reads the usage of a process from /proc."""
    return read_usage(Path(f"/proc/{pid}/stat").read_text(encoding="ascii"))


def read_usage(stat: str) -> Usage:
    """Parses the content of /proc/PID/stat; see proc(5)."""
    fields = stat.rpartition(") ")[2].split()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return Usage(
        cpu=(int(fields[11]) + int(fields[12])) / ticks,
        memory=int(fields[21]) * page / 2**20,
        threads=int(fields[17]),
    )


@dataclass(frozen=True)
class Target:
    """A running control plane.

    Attributes:
        addresses: The xDS address of each of its processes.
        pids: The ids of its processes.
        change: The load generator's arguments that define how it makes a change.
    """

    addresses: Sequence[str]
    pids: Sequence[int]
    change: Sequence[str]

    def load(self, **options: object) -> dict[str, Any]:
        """Runs the load generator and returns its report."""
        return finish(self.start_load(**options))

    def start_load(self, **options: object) -> subprocess.Popen[str]:
        """Starts the load generator."""
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return subprocess.Popen(
            [
                BUILD / "adsload",
                f"--targets={','.join(self.addresses)}",
                f"--pids={','.join(map(str, self.pids))}",
                *self.change,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finish(load: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for the load generator's report.

    Raises:
        RuntimeError: the load generator has failed.
    """
    report, errors = load.communicate()
    if load.returncode:
        raise RuntimeError(f"the load generator has failed: {errors.strip()}")
    measured: dict[str, Any] = json.loads(report)
    return measured


@contextlib.contextmanager
def peer(*, services: int, endpoints: int, tls: Path | None = None) -> Iterator[Target]:
    """Runs go-control-plane; with mutual TLS if there is a folder of its certificate."""
    address, control = (f"127.0.0.1:{running.free_port()}" for _ in range(2))
    sizes = [f"--services={services}", f"--endpoints={endpoints}", *([f"--tls={tls}"] if tls else [])]
    with Running(
        str(BUILD / "peer"), f"--listen={address}", f"--control={control}", *sizes, env=running.environment()
    ) as program:
        program.wait_for_line("listening")
        change = f"--post=http://{control}/set?address={{address}}"
        yield Target([address], [program.pid], [change])


@contextlib.contextmanager
def api_server(**options: object) -> Iterator[str]:
    """Runs a stub of the Kubernetes API server with options of its own, and yields its address."""
    address = f"127.0.0.1:{running.free_port()}"
    sizes = (f"--{name}={value}" for name, value in options.items())
    with Running(
        str(BUILD / "apiserver"), f"--listen={address}", *sizes, env=running.environment()
    ) as program:
        program.wait_for_line("listening")
        yield address


def kubeconfig(path: Path, address: str) -> Path:
    """Writes a kubeconfig for an API server without authentication."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bench",
                "clusters": [{"name": "bench", "cluster": {"server": f"http://{address}"}}],
                "users": [{"name": "bench", "user": {}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            }
        ),
        encoding="utf-8",
    )
    return path


@contextlib.contextmanager
def ours(
    directory: Path, *, replicas: int = 1, tls: Path | None = None, **options: object
) -> Iterator[Target]:
    """Runs xds-server with the stub of the API server, which gets the options.

    With a folder of its certificate, clients are to connect with mutual TLS.
    """
    with api_server(**options) as api, contextlib.ExitStack() as stack:
        config = str(kubeconfig(directory / "kubeconfig", api))
        ports = [_tls_settings(tls) if tls else {} for _ in range(replicas)]
        found = [stack.enter_context(XdsServer(None, KUBECONFIG=config, **each)) for each in ports]
        for one in found:
            one.wait_until_ready()
        change = f"--post=http://{api}/set?address={{address}}"
        addresses = [each.get("TLS_LISTEN", one.address) for one, each in zip(found, ports, strict=True)]
        yield Target(addresses, [one.pid for one in found], [change])


def _tls_settings(folder: Path) -> dict[str, str]:
    return {
        "LISTEN": "",
        "TLS_LISTEN": f"127.0.0.1:{running.free_port()}",
        "TLS_CERT_FILE": str(folder / "tls.crt"),
        "TLS_KEY_FILE": str(folder / "tls.key"),
        "TLS_CLIENT_CA_FILE": str(folder / "ca.crt"),
    }


@contextlib.contextmanager
def ours_with_files(directory: Path, *, endpoints: int) -> Iterator[Target]:
    """Runs xds-server with a folder of files; slices are as large as those of Kubernetes."""
    folder = directory / "objects"
    folder.mkdir()
    addresses = [MARKER, *(f"10.0.{number >> 8}.{number & 255}" for number in range(1, endpoints))]
    objects.write(folder / "service.yaml", objects.service("service-0"))
    for start in range(0, endpoints, SLICE_SIZE):
        found = objects.endpoints(*addresses[start : start + SLICE_SIZE], port=50051)
        for number, endpoint in enumerate(found["endpoints"], start):
            pod = {"kind": "Pod", "namespace": "default", "name": f"service-0-{number}"}
            endpoint.update(zone="zone-a", targetRef=pod)
        objects.write(
            folder / f"slice-{start}.yaml", objects.endpoint_slice(f"service-0-{start}", "service-0", **found)
        )
    changing = folder / "slice-0.yaml"
    template = directory / "template.yaml"
    shutil.copy(changing, template)
    with XdsServer(folder) as server:
        server.wait_until_ready()
        yield Target([server.address], [server.pid], [f"--template={template}", f"--output={changing}"])


def metrics(address: str) -> dict[str, float]:
    """Reads an xds-server's metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def say(text: str) -> None:
    """Prints a line of progress."""
    sys.stderr.write(f"{text}\n")
