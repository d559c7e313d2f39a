"""A signal that arrives while a program is still importing."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import running
from tests.support.waiting import DEADLINE

SITE = """
import os
import sys


class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            sys.meta_path.remove(self)
            for number in {numbers}:
                os.kill(os.getpid(), number)


sys.meta_path.insert(0, Signals())
"""
"""Python imports it before the program (https://docs.python.org/3/library/site.html#module-sitecustomize)."""


def run(tmp_path: Path, *command: str, numbers: list[int]) -> subprocess.CompletedProcess[str]:
    """Runs a program that gets signals when it imports pydantic."""
    (tmp_path / "sitecustomize.py").write_text(SITE.format(numbers=numbers))
    env = running.environment(
        PYTHONPATH=str(tmp_path),
        PORT="0",
        TARGET="127.0.0.1:1",
        LISTEN="127.0.0.1:0",
        ADMIN_LISTEN="127.0.0.1:0",
        DEBUG_LISTEN="",
        DISCOVERY="files",
        DISCOVERY_DIR=str(tmp_path),
    )
    return running.run(*command, env=env)


@pytest.mark.parametrize(
    "command",
    [("hello-server",), ("howdy-server",), ("hello-client",), ("howdy-client",), ("xds-server", "serve")],
)
def test_a_signal_during_the_imports_ends_the_program_well(command: tuple[str, ...], tmp_path: Path) -> None:
    result = run(tmp_path, *command, numbers=[int(signal.SIGTERM)])
    assert (result.returncode, result.stderr) == (0, "")
    [line] = running.records(result.stdout.splitlines())
    assert (line["event"], line["signal"]) == ("stopping", "SIGTERM")


def test_a_second_signal_during_the_imports_ends_it_at_once(tmp_path: Path) -> None:
    result = run(tmp_path, "hello-server", numbers=[int(signal.SIGTERM), int(signal.SIGINT)])
    assert (result.returncode, result.stdout, result.stderr) == (128 + signal.SIGINT, "", "")


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/unshare").exists(), reason="needs root and unshare"
)
def test_pid_1_ends_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE.format(numbers=[int(signal.SIGTERM)]))
    result = subprocess.run(
        ["/usr/bin/unshare", "--pid", "--fork", running.BIN / "hello-server"],
        env=running.environment(PYTHONPATH=str(tmp_path), PORT="0"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [line["event"] for line in running.records(result.stdout.splitlines())] == ["stopping"]
