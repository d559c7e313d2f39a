"""Settings: flags and environment variables of the same names, and what is said about wrong ones."""

from typing import Literal, Self

import pytest
from pydantic import Field, field_validator, model_validator

from servicekit.errors import ConfigurationError
from servicekit.settings import Delay, Interval, Port, ServiceSettings, load, parse


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


def read(*arguments: str) -> Settings:
    return parse(Settings, program="example", arguments=arguments)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults() -> None:
    settings = read()
    assert (settings.port, settings.file, settings.log_format, settings.log_level) == (
        50051,
        "found out",
        "auto",
        "INFO",
    )


def test_flags_and_variables_have_the_same_names_and_a_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAIN_DELAY", "1.5")
    monkeypatch.setenv("PORT", "1")
    settings = read("--port", "2", "--log-level=DEBUG")
    assert (settings.drain_delay, settings.port, settings.log_level) == (1.5, 2, "DEBUG")


def test_values_that_are_not_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCH", "false")
    monkeypatch.setenv("NAMESPACES", "a,b")
    settings = read()
    assert (settings.watch, settings.namespaces) == (False, ("a", "b"))


def test_an_empty_variable_counts_as_unset_and_others_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("HELLO_SERVER_PORT", "tcp://10.96.0.1:50051")  # as Kubernetes sets for Services
    assert read().port == 50051


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("PORT", "abc", "must be an integer between 0 and 65535"),
        ("PORT", "70000", "must be an integer between 0 and 65535"),
        ("REPLICAS", "1.5", "must be an integer"),
        ("SHARDS", "0", "must be an integer of at least 1"),
        ("DRAIN_DELAY", "-1", "must be a number between 0 and 86400"),
        ("DRAIN_DELAY", "nan", "must be a number between 0 and 86400"),
        ("INTERVAL", "0", "must be a number greater than 0 and of at most 86400"),
        ("WATCH", "maybe", "must be true or false"),
        ("LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING or ERROR"),
        ("FILE", "a/", "must be a file, not a folder"),
        ("FILE", "\udcff", "must be UTF-8"),  # how Python shows a byte that is not
    ],
)
def test_a_wrong_value(variable: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = "--" + variable.lower().replace("_", "-")
    with pytest.raises(ConfigurationError) as error:
        read(flag, value)
    assert str(error.value) == f"{flag}={value}: {rule}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as error:
        read()
    assert str(error.value) == f"{variable}={value}: {rule}"


def test_all_wrong_values_are_named_on_one_line() -> None:
    with pytest.raises(ConfigurationError) as error:
        read("--port", "x", "--watch", "z")
    assert str(error.value) == (
        "--port=x: must be an integer between 0 and 65535; --watch=z: must be true or false"
    )


def test_a_value_of_several_lines_is_told_on_one() -> None:
    with pytest.raises(ConfigurationError) as error:
        read("--port", "1\n2")
    assert str(error.value) == "--port=1 2: must be an integer between 0 and 65535"


def test_a_rule_over_several_settings() -> None:
    with pytest.raises(ConfigurationError) as error:
        read("--mode=safe")
    assert str(error.value) == "MODE=safe needs SHARDS of at least 2"


@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--por", "1"], ["1"], ["--port"]])
def test_a_wrong_command_line(arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(*arguments)
    assert "(`example --help` lists the settings)" in str(error.value)
    assert "\n" not in str(error.value)


def test_load_ends_the_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load(Settings, program="example", arguments=["--port", "abc"])
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "example: error: --port=abc: must be an integer between 0 and 65535\n"


def test_help_tells_flag_variable_default_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as end:
        load(Settings, program="example", arguments=["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "Serves examples." in text
    assert "for readers of the code" not in text
    assert "--port PORT           Where to listen; 100% of all addresses. [PORT, default 50051]" in text
    assert "--drain-delay DRAIN_DELAY\n                        [DRAIN_DELAY, default 5]" in text
    assert "--watch true|false    [WATCH, default true]" in text
    assert "--mode fast|safe      [MODE, default fast]" in text
    assert "--file FILE           A file. [FILE]" in text
    assert text.index("--port") < text.index("--log-format"), "the program's own settings come first"
