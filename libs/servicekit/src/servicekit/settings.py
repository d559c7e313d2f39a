"""Settings of a program from flags and environment variables of the same names; a flag wins.

`--log-level` and `LOG_LEVEL` are the field `log_level` of a settings class. pydantic-settings reads the
environment and validates; argparse reads the flags, as the flags of pydantic-settings 2.16 print a
traceback for a wrong value and show no environment names in `--help`.
It must not know any one program's settings.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.errors import ConfigurationError

DAY = 86_400

Port = Annotated[int, Field(ge=0, le=65_535)]
"""A TCP port to listen on; 0 takes any free one."""

Delay = Annotated[float, Field(ge=0, le=DAY, allow_inf_nan=False)]
"""Seconds, 0 for none at all."""

Interval = Annotated[float, Field(gt=0, le=DAY, allow_inf_nan=False)]
"""Seconds, more than none."""


class ServiceSettings(BaseSettings):
    """The settings that every program has."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, enable_decoding=False
    )

    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="How to write the log; auto: text on a terminal, JSON lines elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least level that is logged."
    )

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: object) -> object:
        """Refuse bytes that are no text: neither protobuf nor JSON could carry them on."""
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be UTF-8") from None
        return value


SettingsType = TypeVar("SettingsType", bound=ServiceSettings)


def load(settings_type: type[SettingsType], *, program: str, arguments: Sequence[str]) -> SettingsType:
    """Read the settings for a program's `main`, which has no log yet.

    As with argparse, `--help` and a wrong setting end the program: exit code 0, or one line on stderr and
    exit code 2.
    """
    try:
        return parse(settings_type, program=program, arguments=arguments)
    except ConfigurationError as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        raise SystemExit(error.exit_code) from None


def parse(settings_type: type[SettingsType], *, program: str, arguments: Sequence[str]) -> SettingsType:
    """Read the settings from the flags in `arguments` and from the environment.

    Raises:
        ConfigurationError: a flag is unknown or a value is wrong.
    """
    flags = vars(_flags_parser(settings_type, program).parse_args(arguments))
    try:
        return settings_type(**flags)
    except ValidationError as error:
        complaints = [_complaint(settings_type, detail, flags) for detail in error.errors()]
        raise ConfigurationError("; ".join(complaints)) from error


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing the usage and ending the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message} (`{self.prog} --help` lists the settings)")


def _flags_parser(settings_type: type[ServiceSettings], program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        usage="%(prog)s [--SETTING VALUE ...]",
        description=(settings_type.__doc__ or "").partition("\n")[0],
        epilog="Each setting is also an environment variable, named in brackets; the flag wins.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    fields = settings_type.model_fields
    for name in sorted(fields, key=ServiceSettings.model_fields.__contains__):  # the program's own first
        field, variable = fields[name], name.upper()
        default = "" if field.default_factory or field.is_required() else _shown(field.default)
        source = f"{variable}, default {default}" if default else variable
        parser.add_argument(
            _flag(name),
            dest=name,
            metavar="|".join(_choices(field)) or variable,
            help=f"{field.description or ''} [{source}]".strip().replace("%", "%%"),
        )
    return parser


def _complaint(settings_type: type[ServiceSettings], detail: ErrorDetails, flags: Mapping[str, str]) -> str:
    """Say what is wrong with a setting, naming it as it was given, and what it may be."""
    cause = detail.get("ctx", {}).get("error")
    if not detail["loc"]:  # a rule over several settings, whose text names them
        return str(cause or detail["msg"])
    name = str(detail["loc"][0])
    rule = str(cause) if cause else _rule(settings_type.model_fields[name]) or _decapitalised(detail["msg"])
    if name in flags:
        return _one_line(f"{_flag(name)}={flags[name]}: {rule}")
    return _one_line(f"{name.upper()}={os.environ.get(name.upper(), detail['input'])}: {rule}")


def _rule(field: FieldInfo) -> str | None:
    """Say which values a setting of a simple type may have."""
    if choices := _choices(field):
        return f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    if field.annotation not in (int, float):
        return None
    kind = "an integer" if field.annotation is int else "a number"
    least = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    above = next((bound.gt for bound in field.metadata if isinstance(bound, Gt)), None)
    most = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    if least is not None and most is not None:
        return f"must be {kind} between {least} and {most}"
    bounds = [
        *([f"of at least {least}"] if least is not None else []),
        *([f"greater than {above}"] if above is not None else []),
        *([f"of at most {most}"] if most is not None else []),
    ]
    return " ".join(["must be", kind, " and ".join(bounds)]).strip()


def _choices(field: FieldInfo) -> tuple[str, ...]:
    if field.annotation is bool:
        return ("true", "false")
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _shown(default: Any) -> str:
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case list() | tuple():
            return ",".join(str(item) for item in default)
        case _:
            return str(default)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
