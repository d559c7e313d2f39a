"""Settings of a program, from flags and environment variables of the same names; a flag wins.

`--log-level` and `LOG_LEVEL` are the field `log_level` of a settings class. pydantic-settings reads the
environment and validates. `servicekit.commands` makes the flags from what `describe` says of each field.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit import addresses
from servicekit.errors import ConfigurationError

DAY = 86_400

Port = Annotated[int, Field(ge=0, le=65_535)]
"""A TCP port to listen on; 0 takes any free one."""

Delay = Annotated[float, Field(ge=0, le=DAY, allow_inf_nan=False)]
"""Seconds; 0 means no delay."""

Interval = Annotated[float, Field(ge=0.001, le=DAY, allow_inf_nan=False)]
"""Seconds, at least a millisecond."""


@dataclass(frozen=True, slots=True)
class OffIfEmpty:
    """Marks a setting that an empty environment variable switches off; elsewhere an empty one counts as unset."""


def _check_address(text: str) -> str:
    addresses.parse(text)
    return text


ListenAddress = Annotated[str, AfterValidator(_check_address)]
"""HOST:PORT to listen on; port 0 takes any free one."""

AddressOrOff = Annotated[str, OffIfEmpty(), AfterValidator(lambda text: text and _check_address(text))]
"""HOST:PORT to listen on; an empty text switches the listener off."""


class ServiceSettings(BaseSettings):
    """The settings that every program has."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, enable_decoding=False
    )

    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="How to write the log; auto: text on a terminal, JSON lines elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged."
    )

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: object) -> object:
        """Refuses bytes that are not UTF-8: neither protobuf nor JSON can carry them."""
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be UTF-8") from None
        return value


SettingsType = TypeVar("SettingsType", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as `--help` lists it."""

    name: str
    flag: str
    values: str
    """What the flag takes: the choices, or a placeholder."""
    help: str
    """What it is for, its environment variable and its default."""


def describe(settings_type: type[ServiceSettings]) -> Sequence[Setting]:
    """Returns all settings of a class, the program's own before those that every program has."""
    fields = settings_type.model_fields
    return [
        _setting(name, fields[name]) for name in sorted(fields, key=ServiceSettings.model_fields.__contains__)
    ]


def read(settings_type: type[SettingsType], flags: Mapping[str, str]) -> SettingsType:
    """Reads the settings from `flags`, by the names of their fields, and from the environment.

    Raises:
        ConfigurationError: A value is wrong.
    """
    off = {
        name: ""
        for name, field in settings_type.model_fields.items()
        if OffIfEmpty() in field.metadata and os.environ.get(name.upper()) == ""
    }
    try:
        return settings_type(**off | dict(flags))  # type: ignore[arg-type] # pydantic reads text
    except ValidationError as error:
        complaints = [_complaint(settings_type, detail, flags) for detail in error.errors()]
        raise ConfigurationError("; ".join(complaints)) from error


def _setting(name: str, field: FieldInfo) -> Setting:
    variable = name.upper()
    default = "" if field.default_factory or field.is_required() else _shown(field.default)
    source = f"{variable}, default {default}" if default else variable
    return Setting(
        name,
        flag=_flag(name),
        values="|".join(_choices(field)) or variable,
        help=f"{field.description or ''} [{source}]".strip(),
    )


def _complaint(settings_type: type[ServiceSettings], detail: ErrorDetails, flags: Mapping[str, str]) -> str:
    """Says what is wrong with a setting, named as it was given, and what it may be."""
    cause = detail.get("ctx", {}).get("error")
    if not detail["loc"]:  # a rule over several settings, whose text names them
        return str(cause or detail["msg"])
    name = str(detail["loc"][0])
    rule = str(cause) if cause else _rule(settings_type.model_fields[name]) or _decapitalised(detail["msg"])
    if name in flags:
        return _one_line(f"{_flag(name)}={flags[name]}: {rule}")
    return _one_line(f"{name.upper()}={os.environ.get(name.upper(), detail['input'])}: {rule}")


def _rule(field: FieldInfo) -> str | None:
    """Says which values a setting of a simple type may have."""
    if choices := _choices(field):
        return f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    if field.annotation not in (int, float):
        return None
    kind = "an integer" if field.annotation is int else "a number"
    least = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    most = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    if least is not None and most is not None:
        return f"must be {kind} between {least} and {most}"
    bounds = [
        *([f"of at least {least}"] if least is not None else []),
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
