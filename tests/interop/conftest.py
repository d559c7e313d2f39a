"""Fixtures of the scenarios, and the table of their results, which a full run writes into the docs."""

import os
import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.interop import envoy
from tests.interop.client import Client, Program
from tests.interop.languages import LANGUAGES, Language
from tests.interop.mesh import Greeter, Mesh
from tests.support import running
from tools.publish import publish, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "interop.md"
GREETERS = 4
CLIENTS = {language.name: language for language in (*LANGUAGES, envoy.ENVOY)}
RESULTS = pytest.StashKey[dict[str, dict[str, str]]]()
PARTIAL = pytest.StashKey[bool]()

Start = Callable[..., Client]
"""Starts a client of the implementation under test, with an optional ``node_id``."""


@pytest.fixture(scope="session")
def greeters() -> Iterator[list[Greeter]]:
    """Greeters that run for the whole session."""
    with ExitStack() as stack:
        found = [stack.enter_context(Greeter(f"hello-{number}")) for number in range(1, GREETERS + 1)]
        for greeter in found:
            greeter.wait_for_line("serving")
        yield found


@pytest.fixture
def mesh(tmp_path: Path, greeters: list[Greeter]) -> Iterator[Mesh]:
    """A mesh; asserts at the end that no client has sent a NACK."""
    folder = tmp_path / "objects"
    folder.mkdir()
    with Mesh(folder, greeters) as mesh:
        yield mesh
        mesh.assert_no_nacks()


@pytest.fixture(params=CLIENTS)
def start(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Start]:
    """A function that starts clients, for each implementation in turn."""
    client = CLIENTS[request.param]
    if reason := dict(_not_for(request.node)).get(client.name):
        pytest.skip(f"n/a: {reason}")
    if client.missing:
        pytest.skip(f"not run: {client.missing}")
    command = _build(client)
    with ExitStack() as stack:

        def begin(node_id: str = "interop") -> Client:
            if client is envoy.ENVOY:
                return stack.enter_context(envoy.Envoy(command, mesh.server.address, node_id))
            environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=mesh.bootstrap(node_id))
            return stack.enter_context(Program(command, environment))

        yield begin


@cache
def _build(client: Language) -> Sequence[str]:
    return client.build()


def _not_for(node: pytest.Item) -> Iterator[tuple[str, str]]:
    """Returns the clients that a scenario does not apply to, and the reasons."""
    return ((mark.args[0], mark.args[1]) for mark in node.iter_markers("not_for"))


def _expect_failure(item: pytest.Item, client: str, report: pytest.TestReport) -> None:
    """Turns an expected failure of a client into a skip, and an unexpected success into a failure."""
    for known, words, reason in (mark.args for mark in item.iter_markers("fails_in")):
        if known == client and report.passed:
            report.outcome, report.longrepr = "failed", f"{client} passes now: remove its fails_in mark"
        elif known == client and words in report.longreprtext:
            report.outcome, report.wasxfail = "skipped", f"n/a: {reason}"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "not_for(client, reason): a client that the scenario does not apply to"
    )
    config.addinivalue_line(
        "markers",
        "fails_in(client, words, reason): a client that is expected to fail with an error that has these words",
    )
    config.stash[RESULTS] = {}
    config.stash[PARTIAL] = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # The first test of a language builds its client.
            item.add_marker(pytest.mark.timeout(900))


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[PARTIAL] = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    client = getattr(item, "callspec", None) and item.callspec.params.get("start")  # type: ignore[attr-defined]
    if client and Path(__file__).parent in item.path.parents:
        scenario = (item.function.__doc__ or item.name).splitlines()[0].rstrip(".")  # type: ignore[attr-defined]
        row = item.config.stash[RESULTS].setdefault(scenario, {})
        if report.when == "call":
            _expect_failure(item, client, report)
        if hasattr(report, "wasxfail"):
            row[client] = report.wasxfail
        elif report.skipped:
            row[client] = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]
        elif report.failed:
            row[client] = "FAILED"
        elif report.when == "call":
            row[client] = "yes"
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    results = config.stash[RESULTS]
    if not results:
        return
    clients = [name for name in CLIENTS if any(name in row for row in results.values())]
    text = table(
        ("scenario", *(f"{name} {CLIENTS[name].version()}" for name in clients)),
        [(scenario, *(row.get(name, "") for name in clients)) for scenario, row in results.items()],
    )
    terminalreporter.section("interop")
    terminalreporter.write_line(text)
    asked = [Path(argument).resolve() for argument in config.args]
    whole = asked == [Path(__file__).parent] and not config.stash[PARTIAL]
    complete = not any("not run" in cell for row in results.values() for cell in row.values())
    if whole and complete and exitstatus == pytest.ExitCode.OK:
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}."
        publish(DOCUMENT, "interop", f"{text}\n\n{machine}")
        terminalreporter.write_line(f"written to {DOCUMENT.name}")
