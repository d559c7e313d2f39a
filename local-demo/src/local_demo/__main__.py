"""The command line of `local-demo`: reads it, runs a command, and turns errors into one line and an exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from local_demo import commands
from local_demo.state import MOST_REPLICAS
from local_demo.supervisor import SERVICES
from servicekit.errors import ConfigurationError, ServiceError

PROGRAM = "local-demo"


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing the usage and ending the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        chosen = vars(_parser().parse_args(arguments))
        code: int = chosen.pop("command")(**chosen)
    except ServiceError as error:
        commands.say(f"{PROGRAM}: error: {error}", to=sys.stderr)
        return error.exit_code
    except OSError as error:
        commands.say(f"{PROGRAM}: error: {error}", to=sys.stderr)
        return ServiceError.exit_code
    except KeyboardInterrupt:
        return commands.INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--directory",
        type=Path,
        default=commands.DIRECTORY,
        help="state directory; demos with different ones (and LISTEN, ADMIN_LISTEN) do not meet [%(default)s]",
    )
    parser = _Parser(
        prog=PROGRAM, description="The five programs of the demo on this machine, without a cluster."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    up = subparsers.add_parser(
        "up",
        parents=[common],
        help="run the demo until Ctrl-C",
        description="Run the demo until Ctrl-C, with the output of all programs; a second Ctrl-C kills everything.",
        epilog="The environment goes to the programs: LISTEN and ADMIN_LISTEN to xds-server, INTERVAL to the clients, "
        "DRAIN_DELAY to the servers, LOG_LEVEL to all, and so on; `PROGRAM --help` lists the settings of each.",
    )
    up.set_defaults(command=commands.up)

    scale = subparsers.add_parser(
        "scale",
        parents=[common],
        help="change how many replicas of a service run",
        description="Change how many replicas of a service run, and wait until they are ready.",
    )
    names = [service.name for service in SERVICES]
    scale.add_argument("service", metavar="SERVICE", type=_service, help=" or ".join(names))
    scale.add_argument("replicas", metavar="REPLICAS", type=_replicas, help=f"from 0 to {MOST_REPLICAS}")
    scale.set_defaults(command=commands.scale)

    stop = subparsers.add_parser(
        "stop",
        parents=[common],
        help="end a running demo",
        description="End a running demo and wait until it has ended.",
    )
    stop.set_defaults(command=commands.stop)
    return parser


def _service(text: str) -> str:
    names = [service.name for service in SERVICES]
    if text not in names:
        raise argparse.ArgumentTypeError(f"unknown service {text!r}: must be {' or '.join(names)}")
    return text


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MOST_REPLICAS):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number between 0 and {MOST_REPLICAS}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
