"""How commands print: as text for people, as JSON or YAML for programs."""

import json
import logging
from enum import StrEnum
from typing import Annotated, Any

import structlog
import typer
import yaml


class Form(StrEnum):
    """A form of output."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


FormOption = Annotated[Form, typer.Option("--output", "-o", help="How to print the result.")]


def show(form: Form, value: Any, text: str) -> None:
    """Prints a result.

    Args:
        form: How.
        value: The result, made of dictionaries, lists and scalars.
        text: The result as text.
    """
    match form:
        case Form.TEXT:
            typer.echo(text, nl=bool(text))
        case Form.JSON:
            typer.echo(json.dumps(value, indent=2))
        case Form.YAML:
            typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def silence_log() -> None:
    """Keeps what the server would log out of the result, which says it all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
