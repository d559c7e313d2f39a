"""The commands: `up` is the supervisor, `scale` and `stop` talk to it through the state directory."""

import asyncio
import math
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from local_demo import addresses, environment, manifests
from local_demo.environment import Listening
from local_demo.output import Output
from local_demo.state import State, wait
from local_demo.supervisor import CLIENTS, REPLICAS, SERVICES, XDS_SERVER, Supervisor
from servicekit.errors import ConfigurationError, ServiceError

DIRECTORY = Path(__file__).parents[3] / ".local"
"""The default state directory: in the checkout that this is installed from."""

_INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_SIGNAL_SECONDS = 0.5
"""One Ctrl-C may arrive twice: from the terminal and from a parent program, such as Task."""
_SCALE_SECONDS = 60.0
_STOP_SECONDS = 30.0


def up(directory: Path) -> int:
    """Runs the demo until a signal or `stop` ends it."""
    user = dict(os.environ)
    where = environment.listening(user)
    state = State(directory)
    with state.lock():
        left = state.end_leftovers()
        state.clear()
        addresses.require_free("LISTEN", where.xds)
        addresses.require_free("ADMIN_LISTEN", where.admin)
        if where.debug:
            addresses.require_free("DEBUG_LISTEN", where.debug)
        output = _output()
        try:
            if left:
                output.write("local", f"ended what an earlier demo left behind: {', '.join(left)}")
            for line in _introduction(directory, where):
                output.write("local", line)
            return asyncio.run(_supervise(Supervisor(state, output, user, where), output))
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # everything has ended
            output.close()


def scale(directory: Path, service: str, replicas: int) -> int:
    """Asks the running supervisor for a number of replicas, and waits until they are ready."""
    state = State(directory)
    if not state.supervisor():
        raise ConfigurationError(
            f"nothing runs in {state.path}: start it with `./taskw local` or `local-demo up`"
        )
    say(f"{service}: scaling from {state.desired_replicas(service)} to {_counted(replicas)}")
    state.set_desired_replicas(service, replicas)
    started = time.monotonic()

    def states() -> Counter[str]:
        return Counter(manifests.states(state.published(), service).values())

    def reached() -> bool:
        if not state.supervisor():
            raise ServiceError("the demo has ended meanwhile")
        if (desired := state.desired_replicas(service)) != replicas:
            raise ServiceError(f"{service} has been scaled to {_counted(desired)} meanwhile")
        return states()["ready"] == replicas

    if not wait(reached, _SCALE_SECONDS):
        raise ServiceError(
            f"{service} has {states()['ready']} of {replicas} replicas ready after {_SCALE_SECONDS:.0f} s: "
            f"see the demo's output"
        )
    draining = states()["draining"]
    also = f", {draining} draining" if draining else ""
    say(f"{service}: {_counted(replicas)} ready{also} after {time.monotonic() - started:.1f} s")
    return 0


def stop(directory: Path) -> int:
    """Ends the running demo, and the programs that a killed one has left behind."""
    state = State(directory)
    if pid := state.supervisor():
        say(f"stopping the demo in {state.path} (process {pid})")
        os.kill(pid, signal.SIGTERM)
        if not wait(lambda: state.supervisor() != pid, _STOP_SECONDS):
            raise ServiceError(f"the demo (process {pid}) has not ended after {_STOP_SECONDS:.0f} s: kill it")
        say("the demo has ended")
    elif not state.path.exists():
        say(f"nothing runs in {state.path}")
    else:
        with state.lock():
            left = state.end_leftovers()
        say(f"nothing runs in {state.path}" + (f"; ended what was left: {', '.join(left)}" if left else ""))
    return 0


async def _supervise(supervisor: Supervisor, output: Output) -> int:
    """Runs everything; the first signal ends it in order, the second one kills it at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = loop.create_task(supervisor.run(stop))

    kill_after = math.inf

    def signalled() -> None:
        nonlocal kill_after
        if not stop.is_set():
            stop.set()
            kill_after = loop.time() + _SAME_SIGNAL_SECONDS
        elif loop.time() > kill_after:
            running.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, signalled)
    try:
        await running
    except asyncio.CancelledError:
        output.write("local", "everything has been killed")
        return _INTERRUPTED
    output.write("local", "everything has ended")
    return 0


def _output() -> Output:
    if sys.stdout is None:  # started with it closed: its number may belong to any other file by now
        return Output(os.open(os.devnull, os.O_WRONLY), coloured=False)
    return Output(sys.stdout.fileno(), coloured=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def _introduction(directory: Path, where: Listening) -> list[str]:
    """Returns the lines that say what runs and what to try."""
    if directory == DIRECTORY:
        task = os.environ.get("TASKW") or "task"
        scaling, stopping = f"{task} local:scale SERVICE=hello-server REPLICAS=5", f"{task} local:stop"
    else:
        scaling = f"local-demo scale hello-server 5 --directory {directory}"
        stopping = f"local-demo stop --directory {directory}"
    return [
        f"starting, with state in {directory}:",
        f"  {XDS_SERVER:<14} xDS on {where.xds}, HTTP on {where.admin}"
        + (f", CSDS on {where.debug}" if where.debug else ""),
        *(f"  {service.name:<14} {REPLICAS} replicas, each on a port of its own" for service in SERVICES),
        *(
            f"  {client:<14} calls xds:///{service.name}.{manifests.NAMESPACE}:{service.port}, "
            f"starts when {XDS_SERVER} and {service.name} are ready"
            for client, service in CLIENTS.items()
        ),
        "to try from another terminal:",
        f"  {scaling}",
        f"  curl http://{where.admin.reachable}/readyz",
        f"  curl http://{where.admin.reachable}/debug/",
        f"Ctrl-C here ends everything, as does {stopping}",
    ]


def _counted(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"


def say(text: str) -> None:
    """Prints a line; a reader that has gone away is no error."""
    with suppress(BrokenPipeError):
        print(text, flush=True)  # noqa: T201 - what the command says
