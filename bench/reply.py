"""From a change in the API to the first reply from the new endpoint, with real clients and servers."""

import contextlib
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import running
from bench.report import Report
from tests.chaos.mesh import bootstrap
from tests.support.running import Running, environment, free_port
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

TARGET = "xds:///service-0.default:50051"
PAUSE = 0.25
"""Seconds between changes, so that each starts without work left from the last."""


class Client(Running):
    """A process that calls repeatedly and reports when a different host replies.

    Args:
        xds_server: The address of its control plane.
        interval: Seconds between calls.
    """

    def __init__(self, xds_server: str, interval: float) -> None:
        self.host = ""
        self.since = 0.0
        program = str(Path(__file__).with_name("follower.py"))
        settings = environment(GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap(xds_server), GRPC_VERBOSITY="NONE")
        super().__init__(sys.executable, program, TARGET, str(interval), env=settings)

    def _take(self, line: str) -> None:
        host, _, since = line.partition(" at ")
        if since:
            self.since, self.host = float(since), host
        else:
            super()._take(line)


def measure(report: Report) -> None:
    """Measures one client that calls without a pause, and many that call at intervals."""
    sizes = {
        "1 client, calls without a pause": (1, 0.0, 20 if report.quick else 200),
        "50 clients, a call every 50 ms each": (50, 0.05, 5 if report.quick else 50),
    }
    rows = []
    for step in report.steps(list(sizes)):
        clients, interval, changes = sizes[step]
        firsts, lasts = _measure(clients, interval, changes)
        rows.append((step, changes, *_quantiles(firsts), *_quantiles(lasts)))
    report.table(
        "reply",
        (
            *("clients", "changes", "first client, p50, ms", "p99, ms", "worst, ms"),
            *("last client, p50, ms", "p99, ms", "worst, ms"),
        ),
        rows,
    )


def _measure(count: int, interval: float, changes: int) -> tuple[list[float], list[float]]:
    """Returns, for each change, the milliseconds until the first and until the last client has a reply from the new host."""
    firsts, lasts = [], []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = stack.enter_context(running.api_server(services=1, endpoints=1))
        server = stack.enter_context(
            XdsServer(None, KUBECONFIG=str(running.kubeconfig(directory / "kubeconfig", api)))
        )
        server.wait_until_ready()
        greeters = [stack.enter_context(_greeter(name)) for name in ("one", "other")]
        _change(api, greeters[-1][1])
        clients = [stack.enter_context(Client(server.address, interval)) for _ in range(count)]
        for number in range(changes):
            name, address = greeters[number % 2]
            wait_until("replies from one host to all", lambda: len({c.host for c in clients} - {""}) == 1)
            time.sleep(PAUSE)
            began = time.monotonic()
            _change(api, address)
            wait_until("replies from the new host to all", partial(_all_reach, clients, name))
            times = [(client.since - began) * 1000 for client in clients]
            firsts.append(min(times))
            lasts.append(max(times))
    return firsts, lasts


@contextlib.contextmanager
def _greeter(name: str) -> Iterator[tuple[str, str]]:
    """Runs a hello-server and yields its name and address."""
    port = str(free_port())
    settings = environment(PORT=port, HOSTNAME=name, POD_IP="127.0.0.1", DRAIN_DELAY="0", LOG_FORMAT="json")
    with Running("hello-server", env=settings) as program:
        program.wait_for_line('"serving"')
        yield name, f"127.0.0.1:{port}"


def _all_reach(clients: list[Client], host: str) -> bool:
    return all(client.host == host for client in clients)


def _change(api: str, address: str) -> None:
    with urllib.request.urlopen(f"http://{api}/set?address={address}", data=b"", timeout=10) as response:
        response.read()


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100, method="inclusive")[98], max(values)
