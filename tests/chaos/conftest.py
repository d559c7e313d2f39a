"""Fixtures of the scenarios, and the table of their results, which a full run writes into the docs."""

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.chaos.mesh import Mesh
from tests.chaos.scenario import HEAD, Console, Row, Scenario
from tools.publish import publish, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
CONSOLE = pytest.StashKey[Console]()
ROWS = pytest.StashKey[list[Row]]()
PARTIAL = pytest.StashKey[bool]()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh without servers."""
    with Mesh(tmp_path) as mesh:
        yield mesh


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Callable[[str, Load], Scenario]:
    """Returns a function that begins a scenario: ``with scenario(name, load) as run``."""
    stash = request.config.stash

    def begin(name: str, load: Load) -> Scenario:
        row = Row(request.path.parent.name, name)
        stash[ROWS].append(row)
        return Scenario(stash[CONSOLE], row, load)

    return begin


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CONSOLE] = Console()
    config.stash[ROWS] = []
    config.stash[PARTIAL] = False


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[PARTIAL] = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    rows = config.stash[ROWS]
    for part in sorted({row.part for row in rows}):
        text = table(HEAD, [row.cells() for row in rows if row.part == part])
        terminalreporter.section(f"chaos: {part}")
        terminalreporter.write_line(text)
        if exitstatus == pytest.ExitCode.OK and not _partial(config, part):
            publish(DOCUMENT, part, f"{_machine()}\n\n{text}")
            terminalreporter.write_line(f"written to {DOCUMENT.name}")


def _partial(config: pytest.Config, part: str) -> bool:
    """Returns whether some scenarios of a part did not run."""
    folder = Path(__file__).parent / part
    asked = [Path(str(argument).partition("::")[0]).resolve() for argument in config.args]
    whole = any("::" not in str(argument) for argument in config.args) and any(
        path == folder or path in folder.parents for path in asked
    )
    return config.stash[PARTIAL] or not whole


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}."
