"""The state directory, through which the supervisor and the other commands communicate.

    lock            locked by the supervisor as long as it lives; holds its process id
    admin           HOST:PORT of xds-server's HTTP server
    objects/        Kubernetes objects, a file each, as an API server would hold them: commands write Deployments, Services
                    and the like, which the supervisor follows; it writes the EndpointSlices; xds-server reads them
    status/NAME     how far the supervisor is with a Deployment
    certificates/   a folder for each program of a secured demo, and one for the authority
    processes/NAME  process id of a program, in a file that is locked as long as the program lives

A lock (flock(2)) goes with the process that holds it, however that ends. So a file that an ended process left behind
is harmless, and the process id in a locked file is always that of the right process.
Only holders lock exclusively: who reads a file takes a shared lock.
"""

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from local_demo import manifests, objects
from local_demo.objects import Identity, Object
from servicekit.errors import ServiceError

_KILL_SECONDS = 5.0
_PERIOD = 0.05


class Status(NamedTuple):
    """How far the supervisor is with a Deployment.

    Attributes:
        generation: Of the Deployment that this is about; 0 if it was deleted.
        ready: How many replicas of its template are ready.
        old: How many replicas of an earlier template are not told to end yet.
        draining: How many replicas end.
    """

    generation: int
    ready: int
    old: int
    draining: int


class State:
    """A state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.objects = self.path / "objects"
        self._status = self.path / "status"
        self.processes = self.path / "processes"
        self.certificates = self.path / "certificates"
        self._lock = self.path / "lock"
        self._published: dict[Path, str] = {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Makes this process the one supervisor of this directory.

        Raises:
            ServiceError: There is one already.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as file:
            # Another command may be reading who holds it, which takes an instant.
            if not wait(lambda: _become_holder(file), 0.5):
                raise ServiceError(
                    f"the demo runs already in {self.path} (process {self.supervisor()}): end it with "
                    f"`local-demo stop`, or run another with --directory, LISTEN, ADMIN_LISTEN and DEBUG_LISTEN of its own"
                )
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def supervisor(self) -> int | None:
        """Returns the process id of the supervisor, None if there is none."""
        return _holder(self._lock)

    def end_leftovers(self) -> list[str]:
        """Kills the programs that a killed supervisor left behind, and returns their names.

        Raises:
            ServiceError: One does not end.
        """
        ended = []
        for file in sorted(self.processes.glob("*")):
            if pid := _holder(file):
                os.kill(pid, signal.SIGKILL)
                if not wait(lambda file=file: _holder(file) is None, _KILL_SECONDS):  # type: ignore[misc]
                    raise ServiceError(
                        f"{file.name} (process {pid}), left by an earlier demo, does not end: kill it"
                    )
                ended.append(file.name)
        return ended

    def clear(self) -> None:
        """Removes what an earlier supervisor left, and nothing else that may be in the directory."""
        for folder in (self.objects, self._status, self.processes):
            folder.mkdir(exist_ok=True)
            for file in folder.iterdir():
                file.unlink()
        shutil.rmtree(self.certificates, ignore_errors=True)

    def require_directory(self) -> None:
        """Makes sure that nobody has removed the directory.

        Raises:
            FileNotFoundError: It is gone.
        """
        if not self.objects.is_dir():
            raise FileNotFoundError(f"{self.path} has been removed: start the demo again")

    def set_admin(self, address: str) -> None:
        """Writes where xds-server's HTTP server listens."""
        _write(self.path / "admin", address)

    def admin(self) -> str:
        """Reads where xds-server's HTTP server listens."""
        return (self.path / "admin").read_text()

    def put(self, document: Object) -> None:
        """Writes an object."""
        _write(self.objects / objects.identity(document).file, manifests.dump(document))

    def get(self, identity: Identity) -> Object | None:
        """Reads an object, None if there is none.

        Raises:
            ConfigurationError: Its file is malformed.
        """
        file = self.objects / identity.file
        text = _read(file)
        return None if text is None else objects.parse(text, str(file))[0]

    def remove(self, identity: Identity) -> bool:
        """Removes an object; returns whether it was there."""
        file = self.objects / identity.file
        found = file.exists()
        file.unlink(missing_ok=True)
        return found

    def texts(self, kind: str) -> dict[str, str]:
        """Reads all files with objects of a kind in the namespace of the demo, by the objects' names."""
        prefix = Identity(kind, objects.NAMESPACE, "").file.removesuffix(".yaml")
        files = sorted(self.objects.glob(f"{prefix}*.yaml"))
        found = {file.stem.removeprefix(prefix): _read(file) for file in files}
        return {name: text for name, text in found.items() if text is not None}

    def publish(self, slices: Mapping[str, str], statuses: Mapping[str, Status]) -> None:
        """Makes the directory hold these EndpointSlices and then these statuses, and none that it held before."""
        files = {self.objects / name: text for name, text in slices.items()} | {
            self._status / name: json.dumps(status) for name, status in statuses.items()
        }
        for file, text in files.items():
            if self._published.get(file) != text:
                _write(file, text)
                self._published[file] = text
        for file in self._published.keys() - files.keys():
            file.unlink(missing_ok=True)
            del self._published[file]

    def status(self, deployment: str) -> Status | None:
        """Reads how far the supervisor is with a Deployment; None if it has none of that name, nor replicas of it."""
        text = _read(self._status / deployment)
        return Status(*json.loads(text)) if text else None


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Makes a file that is locked as long as this process, or one that inherits its descriptor, keeps it open."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file.fileno()


def _holder(path: Path) -> int | None:
    """Returns the process id in a file that is locked exclusively, None if it is not.

    The shared lock by which this finds out does not look like a holder to others that do the same.
    """
    try:
        with path.open("r+") as file:
            while not _try_lock(file, fcntl.LOCK_SH):
                if pid := path.read_text():
                    return int(pid)
                time.sleep(_PERIOD)  # locked, and about to be filled
    except FileNotFoundError:
        pass
    return None


def _become_holder(file: IO[str]) -> bool:
    """Locks a file exclusively, and empties it before: nobody may read the id of an earlier holder that was killed."""
    if not _try_lock(file, fcntl.LOCK_SH):
        return False
    file.truncate(0)
    return _try_lock(file, fcntl.LOCK_EX)


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until a condition holds, at most so many seconds; returns whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PERIOD)
    return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:  # it may have been removed meanwhile
        return None


def _write(path: Path, text: str) -> None:
    """Writes a file atomically, by a temporary name that xds-server does not read."""
    temporary = path.with_name(f".{path.name}.temporary")
    temporary.write_text(text)
    temporary.replace(path)
