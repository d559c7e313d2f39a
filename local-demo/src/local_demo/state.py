"""The state directory, through which the supervisor and the other commands communicate.

    lock            locked by the supervisor as long as it lives; holds its process id
    endpoints/      Kubernetes objects for xds-server: a Service file, and an EndpointSlice file a replica
    replicas/NAME   how many replicas of a service should run: `scale` writes it, the supervisor follows
    processes/NAME  process id of a program, in a file that is locked as long as the program lives

A lock (flock(2)) goes with the process that holds it, however that ends. So a file that an ended process left behind
is harmless, and the process id in a locked file is always that of the right process.
Only holders lock exclusively: who reads a file takes a shared lock.
"""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from servicekit.errors import ServiceError

MAX_REPLICAS = 50
_KILL_SECONDS = 5.0
_PERIOD = 0.05


class State:
    """A state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.endpoints = self.path / "endpoints"
        self.replicas = self.path / "replicas"
        self.processes = self.path / "processes"
        self._lock = self.path / "lock"
        self._published: dict[str, str] = {}

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
        for folder in (self.endpoints, self.replicas, self.processes):
            folder.mkdir(exist_ok=True)
            for file in folder.iterdir():
                file.unlink()

    def require_directory(self) -> None:
        """Makes sure that nobody has removed the directory.

        Raises:
            FileNotFoundError: It is gone.
        """
        if not self.replicas.is_dir():
            raise FileNotFoundError(f"{self.path} has been removed: start the demo again")

    def publish(self, files: Mapping[str, str]) -> None:
        """Makes the folder of the endpoints hold these files and no others; writes new ones before it removes old ones."""
        for name, text in files.items():
            if self._published.get(name) != text:
                _write(self.endpoints / name, text)
                self._published[name] = text
        for name in self._published.keys() - files.keys():
            (self.endpoints / name).unlink(missing_ok=True)
            del self._published[name]

    def published(self) -> list[str]:
        """Reads the files of the endpoints' folder."""
        texts = []
        for file in sorted(self.endpoints.glob("*.yaml")):
            try:
                texts.append(file.read_text())
            except FileNotFoundError:  # the supervisor has removed it meanwhile
                continue
        return texts

    def set_desired_replicas(self, service: str, replicas: int) -> None:
        """Writes how many replicas of a service should run."""
        _write(self.replicas / service, f"{replicas}\n")

    def desired_replicas(self, service: str) -> int:
        """Returns how many replicas of a service should run.

        Raises:
            ServiceError: The file does not say.
        """
        file = self.replicas / service
        try:
            replicas = int(file.read_text())
        except (OSError, ValueError) as error:
            raise ServiceError(f"{file} does not hold a number: {error}") from error
        if not 0 <= replicas <= MAX_REPLICAS:
            raise ServiceError(f"{file} must hold a number between 0 and {MAX_REPLICAS}, not {replicas}")
        return replicas


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


def _write(path: Path, text: str) -> None:
    """Writes a file atomically, by a temporary name that xds-server does not read."""
    temporary = path.with_name(f".{path.name}.temporary")
    temporary.write_text(text)
    temporary.replace(path)
