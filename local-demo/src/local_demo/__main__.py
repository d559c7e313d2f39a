"""The command line of `local-demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import servicekit.commands
from local_demo import commands
from local_demo.objects import MAX_REPLICAS

PROGRAM = "local-demo"
_EPILOG = (
    "The environment goes to the programs: LISTEN, ADMIN_LISTEN and DEBUG_LISTEN to xds-server, INTERVAL to the clients, "
    "DRAIN_DELAY to the servers, LOG_LEVEL to all, and so on; `PROGRAM --help` lists the settings of each."
)

program = servicekit.commands.new_app("The five programs of the demo on this machine, without a cluster.")


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_REPLICAS):
        raise typer.BadParameter(f"{text!r} must be a whole number between 0 and {MAX_REPLICAS}")
    return int(text)


Directory = Annotated[
    Path,
    typer.Option(
        metavar="DIRECTORY",
        help="State directory. To run a second demo, also change LISTEN, ADMIN_LISTEN and DEBUG_LISTEN.",
    ),
]
Service = Annotated[
    str,
    typer.Argument(metavar="NAME", help="hello-server, howdy-server or a Deployment that was applied."),
]
Replicas = Annotated[
    int, typer.Argument(metavar="REPLICAS", parser=_replicas, help=f"From 0 to {MAX_REPLICAS}.")
]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A YAML file, a folder of such files, or a folder with a kustomization.yaml."
    ),
]


@program.command(epilog=_EPILOG)
def up(directory: Directory = commands.DIRECTORY) -> int:
    """Runs the demo until Ctrl-C, with the output of all programs; a second Ctrl-C kills them all."""
    return commands.up(directory)


# Unknown options are arguments, so that -1 is told to be no number of replicas rather than no option.
@program.command(context_settings={"ignore_unknown_options": True})
def scale(service: Service, replicas: Replicas, directory: Directory = commands.DIRECTORY) -> int:
    """Changes how many replicas of a service run, and waits until they are ready."""
    return commands.scale(directory, service, replicas)


@program.command()
def apply(file: File, directory: Directory = commands.DIRECTORY) -> int:
    """Creates or changes the objects of a file, waits until they are ready, and shows their conditions.

    The exit code is 1 if xds-server does not use one of them as it is, and 2 if nothing was applied.
    """
    return commands.apply(directory, file)


@program.command()
def delete(file: File, directory: Directory = commands.DIRECTORY) -> int:
    """Deletes the objects of a file, and waits until their processes have ended."""
    return commands.delete(directory, file)


@program.command()
def renew(directory: Directory = commands.DIRECTORY) -> int:
    """Issues new certificates to a secured demo (SECURE=true), which takes them without losing a connection."""
    return commands.renew(directory)


@program.command()
def stop(directory: Directory = commands.DIRECTORY) -> int:
    """Ends a running demo and waits until it has ended."""
    return commands.stop(directory)


def main() -> int:
    """Runs the command line and returns the exit code."""
    return servicekit.commands.run(program, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
