"""The commands: `up` is the supervisor, the others talk to it through the state directory."""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from local_demo import addresses, certificates, conditions, environment, objects, sources
from local_demo.environment import Listening
from local_demo.objects import Deployment, Identity, Object
from local_demo.output import Output
from local_demo.state import State, Status, wait
from local_demo.supervisor import ACCOUNTS, CLIENTS, GREETERS, REPLICAS, XDS_SERVER, Supervisor
from servicekit.errors import ConfigurationError, ServiceError

DIRECTORY = Path(__file__).parents[3] / ".local"
"""The default state directory: in the checkout that this is installed from."""

_INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_SIGNAL_SECONDS = 0.5
"""One Ctrl-C may arrive twice: from the terminal and from a parent program, such as Task."""
_SCALE_SECONDS = 60.0
_CONDITIONS_SECONDS = 5.0
_STOP_SECONDS = 30.0


def up(directory: Path) -> int:
    """Runs the demo until a signal or `stop` ends it."""
    user = dict(os.environ)
    state = State(directory)
    where = environment.listening(user, state.certificates)
    with state.lock():
        left = state.end_leftovers()
        state.clear()
        addresses.require_free("TLS_LISTEN" if where.certificates else "LISTEN", where.xds)
        addresses.require_free("ADMIN_LISTEN", where.admin)
        if where.debug:
            addresses.require_free("DEBUG_LISTEN", where.debug)
        if where.certificates:
            issue(where.certificates)
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


def issue(folder: Path) -> None:
    """Issues new certificates to all programs of the secured demo."""
    certificates.issue_all(folder, ACCOUNTS, {XDS_SERVER: ("localhost", XDS_SERVER)})


def renew(directory: Path) -> int:
    """Issues new certificates to the running demo, which takes them without losing a connection."""
    state = State(directory)
    _require_demo(state)
    if not state.certificates.exists():
        raise ConfigurationError("the demo is not secured: start it with SECURE=true")
    issue(state.certificates)
    say(f"new certificates are in {state.certificates}; each program reads them within a few seconds")
    return 0


def scale(directory: Path, name: str, replicas: int) -> int:
    """Asks the running supervisor for a number of replicas, and waits until they are ready."""
    state = State(directory)
    names = state.texts(objects.DEPLOYMENT) or objects.SERVERS
    if name not in names:
        raise ConfigurationError(f"unknown service {name!r}: must be {' or '.join(names)}")
    _require_demo(state)
    identity = Identity(objects.DEPLOYMENT, objects.NAMESPACE, name)
    before = state.get(identity)
    if before is None:
        raise ServiceError(f"{name} has been deleted meanwhile")
    scaled = objects.kept({**before, "spec": {**before["spec"], "replicas": replicas}}, before, objects.now())
    say(f"{name}: scaling from {before['spec']['replicas']} to {_counted(replicas)}")
    state.put(scaled)
    _wait_until_ready(state, objects.deployment(scaled))
    return 0


def apply(directory: Path, path: Path) -> int:
    """Gives the objects of a file or folder to the running demo, and waits until they have an effect.

    Everything is checked before anything is written. Servers are ready before routes send clients to them, and clients
    start last.
    """
    state = State(directory)
    found = _read(path)
    for source, document in found:
        try:
            _check(document)
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: {error}") from error
    _check_duplicates(found)
    _require_demo(state)
    stages: dict[_Stage, list[Object]] = {stage: [] for stage in _Stage}
    for _, document in found:
        stages[_stage(document)].append(document)
    traffic: list[Object] = []
    for stage, documents in stages.items():
        kept = _put(state, documents)
        if stage is _Stage.TRAFFIC:
            traffic = kept
        for deployment in (objects.deployment(each) for each in kept if each["kind"] == objects.DEPLOYMENT):
            _wait_until_ready(state, deployment)
    return 0 if _show_conditions(state, traffic) else 1


def delete(directory: Path, path: Path) -> int:
    """Takes the objects of a file or folder from the running demo, and waits until their processes have ended."""
    state = State(directory)
    identities = [objects.identity(document) for _, document in _read(path)]
    _require_demo(state)
    for identity in sorted(identities, key=lambda each: each.kind not in objects.TRAFFIC):
        say(f"{identity}: {'deleted' if state.remove(identity) else 'is not there'}")
    started = time.monotonic()
    for name in (each.name for each in identities if each.kind == objects.DEPLOYMENT):
        if not wait(lambda name=name: not state.supervisor() or state.status(name) is None, _SCALE_SECONDS):  # type: ignore[misc]
            raise ServiceError(
                f"the replicas of {name} have not ended after {_SCALE_SECONDS:.0f} s: see the demo's output"
            )
        say(f"{name}: all replicas have ended after {time.monotonic() - started:.1f} s")
    return 0


def _read(path: Path) -> list[tuple[Path, Object]]:
    """Reads the objects that count here, each with its file; says which do not count."""
    found = [
        (file, document) for file, text in sources.read(path) for document in objects.parse(text, str(file))
    ]
    for _, document in found:
        if not objects.is_used(document):
            say(f"{objects.identity(document)}: ignored, as the local demo has no use for it")
    return [each for each in found if objects.is_used(each[1])]


def _check(document: Object) -> None:
    """Raises ConfigurationError if the demo itself could not use an object."""
    if document["kind"] == objects.DEPLOYMENT:
        objects.deployment(document)
    elif document["kind"] == objects.SERVICE:
        objects.service(document)


def _check_duplicates(found: Sequence[tuple[Path, Object]]) -> None:
    """Raises ConfigurationError if an object is there twice."""
    files: dict[Identity, Path] = {}
    for file, document in found:
        identity = objects.identity(document)
        if identity in files:
            raise ConfigurationError(f"{file}: {identity} is in {files[identity]} too: delete one of the two")
        files[identity] = file


class _Stage(Enum):
    """What is applied together, one after the other."""

    SERVERS = auto()
    TRAFFIC = auto()
    CLIENTS = auto()


def _stage(document: Object) -> _Stage:
    if document["kind"] in objects.TRAFFIC:
        return _Stage.TRAFFIC
    is_deployment = document["kind"] == objects.DEPLOYMENT
    if is_deployment and objects.deployment(document).template.program in objects.CLIENTS:
        return _Stage.CLIENTS
    return _Stage.SERVERS


def _require_demo(state: State) -> None:
    if not state.supervisor():
        raise ConfigurationError(
            f"nothing runs in {state.path}: start it with `./taskw local` or `local-demo up`"
        )


def _put(state: State, documents: Sequence[Object]) -> list[Object]:
    """Writes objects, says what changes, and returns them as they are kept."""
    result = []
    for document in documents:
        identity = objects.identity(document)
        before = state.get(identity)
        kept = objects.kept(document, before, objects.now())
        if kept != before:
            state.put(kept)
        say(f"{identity}: {'created' if before is None else 'unchanged' if kept == before else 'configured'}")
        result.append(kept)
    return result


def _wait_until_ready(state: State, deployment: Deployment) -> None:
    """Waits until all replicas of a Deployment run as it says, and says how long it took."""
    started = time.monotonic()
    name, replicas = deployment.name, deployment.replicas
    identity = Identity(objects.DEPLOYMENT, objects.NAMESPACE, name)

    def status() -> Status:
        found = state.status(name)
        return found if found and found.generation == deployment.generation else Status(0, 0, 0, 0)

    def reached() -> bool:
        if not state.supervisor():
            raise ServiceError("the demo has ended meanwhile")
        current = state.get(identity)
        if current is None or current["metadata"]["generation"] != deployment.generation:
            raise ServiceError(f"{name} has been changed or deleted meanwhile")
        found = status()
        return (found.generation, found.ready, found.old) == (deployment.generation, replicas, 0)

    if not wait(reached, _SCALE_SECONDS):
        raise ServiceError(
            f"{name} has {status().ready} of {replicas} replicas ready after {_SCALE_SECONDS:.0f} s: "
            f"see the demo's output"
        )
    draining = status().draining
    also = f", {draining} draining" if draining else ""
    say(f"{name}: {_counted(replicas)} ready{also} after {time.monotonic() - started:.1f} s")


def _show_conditions(state: State, documents: Sequence[Object]) -> bool:
    """Says what xds-server thinks of routes and policies, once it has read them; returns whether it uses all of them."""
    used = True
    waiting = {objects.identity(document): document["metadata"]["generation"] for document in documents}
    admin = state.admin()

    def answered() -> bool:
        nonlocal used
        for identity, entry in list(conditions.fetch(admin, waiting)):
            used = used and conditions.is_good(identity, entry)
            for line in conditions.lines(identity, entry):
                say(line)
            del waiting[identity]
        return not waiting

    if not wait(answered, _CONDITIONS_SECONDS):
        for identity in waiting:
            say(f"{identity}: xds-server says nothing about it: see the demo's output")
        return False
    return used


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
        applying = f"{task} local:apply FILE=k8s/examples/canary"
    else:
        scaling = f"local-demo scale hello-server 5 --directory {directory}"
        applying = f"local-demo apply k8s/examples/canary --directory {directory}"
        stopping = f"local-demo stop --directory {directory}"
    return [
        f"the page that shows everything: http://{where.admin.reachable}/",
        f"starting, with state in {directory}:",
        f"  {XDS_SERVER:<14} xDS on {where.xds}, HTTP on {where.admin}"
        + (f", CSDS on {where.debug}" if where.debug else ""),
        *(f"  {service.name:<14} {REPLICAS} replicas, each on a port of its own" for service in GREETERS),
        *(
            f"  {client:<14} calls xds:///{service.name}.{objects.NAMESPACE}:{service.port}, "
            f"starts when {XDS_SERVER} and {service.name} are ready"
            for client, service in CLIENTS.items()
        ),
        "to try from another terminal:",
        f"  {scaling}",
        f"  {applying}",
        f"  curl http://{where.admin.reachable}/debug/",
        f"Ctrl-C here ends everything, as does {stopping}",
    ]


def _counted(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"


def say(text: str) -> None:
    """Prints a line; a reader that has gone away is no error."""
    with suppress(BrokenPipeError):
        print(text, flush=True)  # noqa: T201 - what the command says
