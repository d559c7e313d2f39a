"""Settings: flags and environment variables of the same names, and what is said about wrong ones."""

import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple, Self

import pytest
from pydantic import Field, field_validator, model_validator

from servicekit import commands
from servicekit.errors import AddressError, ConfigurationError
from servicekit.settings import AddressOrOff, Delay, Interval, ListenAddress, Port, ServiceSettings, read
from tests.support import running


class Settings(ServiceSettings):
    """Serves examples.

    This paragraph is for readers of the code.
    """

    port: Port = Field(50051, description="Where to listen; 100% of all addresses.")
    drain_delay: Delay = 5
    interval: Interval = 3
    replicas: int = 1
    shards: int = Field(1, ge=1)
    watch: bool = True
    mode: Literal["fast", "safe"] = "fast"
    namespaces: tuple[str, ...] = ()
    file: str = Field(default_factory=lambda: "found out", description="A file.")
    listen: ListenAddress = "[::]:0"
    debug_listen: AddressOrOff = "127.0.0.1:18081"

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("file")
    @classmethod
    def _not_a_folder(cls, value: str) -> str:
        if value.endswith("/"):
            raise ValueError("must be a file, not a folder")
        return value

    @model_validator(mode="after")
    def _safe_needs_shards(self) -> Self:
        if self.mode == "safe" and self.shards == 1:
            raise ValueError("MODE=safe needs SHARDS of at least 2")
        return self


class Result(NamedTuple):
    """What a run of the example program left."""

    code: int
    settings: Settings | None
    output: str
    error: str


class Example:
    """A program with one command, `example`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: str) -> Result:
        found: list[Settings] = []

        def keep(settings: Settings) -> int:
            found.append(settings)
            return 0

        code = commands.run_command("example", Settings, keep, arguments)
        output, error = self._capsys.readouterr()
        return Result(code, found[0] if found else None, output, error)

    def settings(self, *arguments: str) -> Settings:
        result = self.run(*arguments)
        assert (result.code, result.error) == (0, "")
        assert result.settings
        return result.settings

    def complaint(self, *arguments: str) -> str:
        """Returns what is said about the settings, which is one line and exit code 2."""
        result = self.run(*arguments)
        assert (result.code, result.settings, result.output) == (2, None, "")
        assert result.error.startswith("example: error: ")
        assert result.error.endswith("\n")
        assert result.error.count("\n") == 1
        return result.error.removeprefix("example: error: ").removesuffix("\n")


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str]) -> Example:
    return Example(capsys)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults(example: Example) -> None:
    settings = example.settings()
    assert (settings.port, settings.file, settings.log_format, settings.log_level) == (
        50051,
        "found out",
        "auto",
        "INFO",
    )


def test_flags_and_variables_have_the_same_names_and_a_flag_wins(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAIN_DELAY", "1.5")
    monkeypatch.setenv("PORT", "1")
    settings = example.settings("--port", "2", "--log-level=DEBUG")
    assert (settings.drain_delay, settings.port, settings.log_level) == (1.5, 2, "DEBUG")


def test_values_that_are_not_text(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCH", "false")
    monkeypatch.setenv("NAMESPACES", "a,b")
    settings = example.settings()
    assert (settings.watch, settings.namespaces) == (False, ("a", "b"))


def test_an_empty_variable_counts_as_unset_and_others_are_ignored(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("HELLO_SERVER_PORT", "tcp://10.96.0.1:50051")  # as Kubernetes sets for Services
    assert example.settings().port == 50051


def test_an_empty_address_switches_a_listener_off(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    assert example.settings().debug_listen == "127.0.0.1:18081"
    assert example.settings("--debug-listen=").debug_listen == ""
    monkeypatch.setenv("DEBUG_LISTEN", "")
    assert example.settings().debug_listen == ""
    assert example.settings("--debug-listen", "127.0.0.1:1").debug_listen == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("PORT", "abc", "must be an integer between 0 and 65535"),
        ("PORT", "70000", "must be an integer between 0 and 65535"),
        ("REPLICAS", "1.5", "must be an integer"),
        ("SHARDS", "0", "must be an integer of at least 1"),
        ("DRAIN_DELAY", "-1", "must be a number between 0 and 86400"),
        ("DRAIN_DELAY", "nan", "must be a number between 0 and 86400"),
        ("INTERVAL", "0.0009", "must be a number between 0.001 and 86400"),
        (
            "LISTEN",
            "foo",
            "must be HOST:PORT, like [::]:50051 or 127.0.0.1:50051, with a port between 0 and 65535",
        ),
        (
            "DEBUG_LISTEN",
            "foo",
            "must be HOST:PORT, like [::]:50051 or 127.0.0.1:50051, with a port between 0 and 65535",
        ),
        ("WATCH", "maybe", "must be true or false"),
        ("LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING or ERROR"),
        ("FILE", "a/", "must be a file, not a folder"),
        ("FILE", "\udcff", "must be UTF-8"),  # how Python shows a byte that is not
    ],
)
def test_a_wrong_value(variable: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = "--" + variable.lower().replace("_", "-")
    with pytest.raises(ConfigurationError) as error:
        read(Settings, {variable.lower(): value})
    assert str(error.value) == f"{flag}={value}: {rule}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as error:
        read(Settings, {})
    assert str(error.value) == f"{variable}={value}: {rule}"


def test_all_wrong_values_are_named_on_one_line(example: Example) -> None:
    assert example.complaint("--port", "x", "--watch", "z") == (
        "--port=x: must be an integer between 0 and 65535; --watch=z: must be true or false"
    )


def test_a_value_of_several_lines_is_told_on_one(example: Example) -> None:
    assert example.complaint("--port", "1\n2") == "--port=1 2: must be an integer between 0 and 65535"


def test_a_rule_over_several_settings(example: Example) -> None:
    assert example.complaint("--mode=safe") == "MODE=safe needs SHARDS of at least 2"


@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--por", "1"], ["1"], ["--port"], ["1\n2"]])
def test_a_wrong_command_line(arguments: list[str], example: Example) -> None:
    assert example.complaint(*arguments).endswith(" (see `example --help`)")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_tells_flag_variable_default_and_meaning(
    flag: str, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = example.run(flag)
    assert (result.code, result.settings, result.error) == (0, None, "")
    assert result.output.startswith("Usage: example [OPTIONS]\n")
    text = " ".join(result.output.split())
    assert "Serves examples." in text
    assert "for readers of the code" not in text
    assert "--port PORT Where to listen; 100% of all addresses. [PORT, default 50051]" in text
    assert "--drain-delay DRAIN_DELAY [DRAIN_DELAY, default 5]" in text
    assert "--watch true|false [WATCH, default true]" in text
    assert "--mode fast|safe [MODE, default fast]" in text
    assert "--file FILE A file. [FILE]" in text
    assert text.index("--port") < text.index("--log-format"), "the program's own settings come first"
    assert "completion" not in text


def test_a_program_with_several_commands(capsys: pytest.CaptureFixture[str]) -> None:
    app = commands.new_app("Does examples.")

    @commands.command(app, Settings)
    def serve(settings: Settings) -> int:
        if settings.port == 1:
            raise AddressError("cannot listen")
        return settings.shards

    @app.command()
    def lint(file: str) -> None:
        """Says what is wrong with a file."""

    def run(*arguments: str) -> tuple[int, str]:
        code = commands.run(app, "example", arguments)
        return code, "".join(capsys.readouterr())

    assert run("serve", "--shards=3") == (3, "")
    assert run("lint", "a.yaml") == (0, "")
    assert run("serve", "--port=x") == (
        2,
        "example serve: error: --port=x: must be an integer between 0 and 65535\n",
    )
    assert run("serve", "--port=1") == (1, "example: error: cannot listen\n")
    assert run("serve", "--prot=1") == (
        2,
        "example serve: error: No such option: --prot (Possible options: --port) (see `example serve --help`)\n",
    )
    code, text = run("serve", "--watch")
    assert code == 2
    assert text.startswith("example serve: error: ")
    assert text.endswith(" (see `example serve --help`)\n")
    assert run() == (2, "example: error: Missing command (see `example --help`)\n")
    assert run("sevre") == (
        2,
        "example: error: No such command 'sevre'. Did you mean 'serve'? (see `example --help`)\n",
    )
    code, text = run("--help")
    assert code == 0
    assert "Does examples." in text
    assert "serve  Serves examples." in text
    assert "lint   Says what is wrong with a file." in text


def test_a_wrong_command_line_without_stderr(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it if it was closed at the start
    assert example.run("--bogus").code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [("hello-server",), ("local-demo",), ("xds-server", "serve")])
def test_help_to_a_full_disk_is_one_line(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [running.BIN / command[0], *command[1:], "--help"],
            env=running.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == f"{command[0]}: error: [Errno 28] No space left on device\n"
