"""Fixtures of the scenarios, and the tables of their results, which a full run writes into the docs."""

import os
import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.interop import envoy
from tests.interop.client import Client, Program
from tests.interop.languages import LANGUAGES, RUST, Language
from tests.interop.mesh import Greeter, Mesh
from tests.support import running
from tools.publish import publish, table

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {
    "test_clients.py": ("interop", DOCS / "interop.md"),
    "test_features.py": ("features", DOCS / "traffic.md"),
    "test_changes.py": ("features", DOCS / "traffic.md"),
    "test_security.py": ("security", DOCS / "security.md"),
}
"""The table of each module, by its name between the markers, and its document."""
GREETERS = 4
CLIENTS = {client.name: client for client in (*LANGUAGES, RUST, envoy.ENVOY)}
Table = dict[str, dict[str, str]]
"""The cells of each scenario, by client."""
RESULTS = pytest.StashKey[dict[str, Table]]()
NOTES = pytest.StashKey[dict[str, list[str]]]()
PARTIAL = pytest.StashKey[bool]()

Start = Callable[..., Client]
"""Starts a client of the implementation under test; its arguments are those of Mesh.bootstrap."""
StartProgram = Callable[..., Program]
"""The same, if the implementation is a gRPC client."""
Note = Callable[..., None]
"""Adds a text to the cell of the implementation under test, or of the one that is named."""


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


@pytest.fixture(params=[name for name in CLIENTS if name != RUST.name])
def start(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Start]:
    """A function that starts clients, for each implementation in turn."""
    client = CLIENTS[request.param]
    if reason := dict(_not_for(request.node)).get(client.name):
        pytest.skip(f"n/a: {reason}")
    if client.missing:
        pytest.skip(f"not run: {client.missing}")
    command = build(client)
    with ExitStack() as stack:

        def begin(node_id: str = "interop", **node: str) -> Client:
            if client is envoy.ENVOY:
                return stack.enter_context(envoy.Envoy(command, mesh.server.address, node_id))
            bootstrap = mesh.bootstrap(node_id, scheme=client.scheme, **node)
            environment = running.environment(GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap)
            return stack.enter_context(Program(command, environment))

        yield begin


@pytest.fixture
def language(request: pytest.FixtureRequest) -> str:
    """The name of the implementation under test."""
    return str(request.node.callspec.params["start"])


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Adds to the test's cells."""
    notes = request.node.stash.setdefault(NOTES, {})

    def add(text: str, client: str = "") -> None:
        notes.setdefault(client or request.node.callspec.params["start"], []).append(text)

    return add


@cache
def build(client: Language) -> Sequence[str]:
    """Builds a client, once, and returns the command that starts it."""
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
    name, _ = TABLES.get(item.path.name, ("", None))
    if not name or Path(__file__).parent not in item.path.parents:
        return report
    notes = item.stash.get(NOTES, {})
    client = item.callspec.params.get("start", "") if hasattr(item, "callspec") else ""
    if client and report.when == "call":
        _expect_failure(item, client, report)
    scenario = (item.function.__doc__ or item.name).splitlines()[0].rstrip(".")  # type: ignore[attr-defined]
    row = item.config.stash[RESULTS].setdefault(name, {}).setdefault(scenario, {})
    for each in {client} if client else notes:
        if hasattr(report, "wasxfail"):
            _add(row, each, report.wasxfail)
        elif report.skipped:
            _add(row, each, str(report.longrepr[2]).removeprefix("Skipped: "))  # type: ignore[index]
        elif report.failed:
            _add(row, each, "FAILED")
        elif report.when == "call":
            _add(row, each, "; ".join(notes.get(each, ["yes"])))
    return report


def _add(row: dict[str, str], client: str, text: str) -> None:
    """Adds to a cell, which the variants of a scenario share."""
    row[client] = text if row.get(client, text) == text else f"{row[client]}; {text}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    asked = [Path(argument).resolve() for argument in config.args]
    whole = asked == [Path(__file__).parent] and not config.stash[PARTIAL]
    for name, document in dict(TABLES.values()).items():
        if not (results := config.stash[RESULTS].get(name)):
            continue
        clients = [client for client in CLIENTS if any(client in row for row in results.values())]
        text = table(
            ("scenario", *(f"{client} {CLIENTS[client].version()}" for client in clients)),
            [(scenario, *(row.get(client, "") for client in clients)) for scenario, row in results.items()],
        )
        terminalreporter.section(name)
        terminalreporter.write_line(text)
        complete = not any("not run" in cell for row in results.values() for cell in row.values())
        if whole and complete and exitstatus == pytest.ExitCode.OK:
            machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}."
            publish(document, name, f"{text}\n\n{machine}")
            terminalreporter.write_line(f"written to {document.name}")
