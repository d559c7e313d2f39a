"""Command lines, by typer: a program is an app, a command is one function, its flags come from a settings class.

A wrong command line or setting is one line on stderr and exit code 2.
"""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, TypeVar

import typer
from typer.models import CommandInfo

from servicekit import settings
from servicekit.errors import ConfigurationError, ServiceError
from servicekit.settings import ServiceSettings

SettingsType = TypeVar("SettingsType", bound=ServiceSettings)

_EPILOG = "Each setting is also an environment variable, named in brackets; the flag wins."


def new_app(description: str) -> typer.Typer:
    """Returns an app to which commands can be added; its help and errors are plain text."""
    app = _plain_app(description, completion=True)
    # Without a callback an app with one command would be that command:
    # https://typer.tiangolo.com/tutorial/commands/one-or-multiple/
    app.callback()(lambda: None)
    return app


def command(
    app: typer.Typer, settings_type: type[SettingsType], name: str | None = None
) -> Callable[[Callable[[SettingsType], int]], None]:
    """Adds the decorated function to `app` as a command with a flag for each setting.

    The function gets the settings and returns the exit code. Without `name` the command is called like it.
    """

    def add(function: Callable[[SettingsType], int]) -> None:
        def run_command(context: typer.Context, **flags: str | None) -> int | Callable[[], int]:
            given = {flag: value for flag, value in flags.items() if value is not None}
            try:
                found = settings.read(settings_type, given)
            except ConfigurationError as error:
                _complain(context.command_path, str(error))
                return error.exit_code
            return lambda: function(found)

        # typer reads the flags from the signature: https://typer.tiangolo.com/tutorial/options/
        run_command.__signature__ = _signature(settings_type)  # type: ignore[attr-defined]
        description = (settings_type.__doc__ or "").partition("\n")[0]
        app.command(name or function.__name__, help=description, epilog=_EPILOG)(run_command)

    return add


def run(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name, by default those of the process; returns the exit code."""
    try:
        result = _call(app, program, arguments)
        return result() if callable(result) else result or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)  # of the command that was called, if typer got so far
        path = context.command_path if context else _path(app, program, arguments)
        _complain(path, f"{error.format_message().removesuffix('.')} (see `{path} --help`)")
        return error.exit_code
    except ServiceError as error:
        _complain(program, str(error))
        return error.exit_code


def run_command(
    program: str,
    settings_type: type[SettingsType],
    function: Callable[[SettingsType], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a program that consists of one command; returns the exit code."""
    app = _plain_app()
    command(app, settings_type, program)(function)
    return run(app, program, arguments)


def _plain_app(description: str | None = None, *, completion: bool = False) -> typer.Typer:
    return typer.Typer(
        help=description,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )


def _signature(settings_type: type[ServiceSettings]) -> inspect.Signature:
    """Returns the signature of a function that takes the context and each setting as optional text."""
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    ]
    for each in settings.describe(settings_type):
        option = typer.Option(each.flag, metavar=each.values, help=each.help, show_default=False)
        parameters.append(
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, option],
            )
        )
    return inspect.Signature(parameters)


def _path(app: typer.Typer, program: str, arguments: Sequence[str] | None) -> str:
    """Returns the program with the command that was called, which typer's parser of options does not tell."""
    first, *_ = [*(sys.argv[1:] if arguments is None else arguments), ""]
    several = app.registered_callback is not None
    return f"{program} {first}" if several and first in map(_name, app.registered_commands) else program


def _name(command: CommandInfo) -> str | None:
    return command.name or (command.callback and command.callback.__name__)


def _call(app: typer.Typer, program: str, arguments: Sequence[str] | None) -> Callable[[], int] | int | None:
    """Returns what the called command does; a command that was added to the app by typer has done it.

    Raises:
        ServiceError: The help, or what such a command writes, cannot be written.
    """
    try:
        result: Callable[[], int] | int | None = app(arguments, prog_name=program, standalone_mode=False)
    except OSError as error:
        _discard_stdout()
        raise ServiceError(str(error)) from error
    return result


def _discard_stdout() -> None:
    """Discards what stdout cannot take: Python would complain about it at the end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _complain(path: str, text: str) -> None:
    if sys.stderr is not None:  # None if the program was started with it closed
        with suppress(OSError):
            sys.stderr.write(f"{path}: error: {' '.join(text.splitlines())}\n")
