"""Records the demo on a kind cluster as docs/images/demo.svg: `task docs:record`.

Everything that it shows happens while it runs: `task deploy`, the client's log, `kubectl scale`, the canary. Pauses are
shortened, nothing else. Run it with KUBECONFIG and CONTEXT of a kind cluster that `task deploy` may change.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.terminal_svg import Line, Terminal, draw

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs/images/demo.svg"
LONGEST_PAUSE = 1.2
"""Seconds; a longer pause of both terminals is shown as one of that length."""
LONGEST_WAIT = 120.0
CALLS_A_SECOND = 4

_REPLY = re.compile(r"message='([^']*)'")
_HOST = re.compile(r"from host (\S+)")
_SHOWN = re.compile(r"^(Creating cluster|deployment\S* |The demo runs)")


class Screen:
    """What a terminal showed, with times of a real clock."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def show(self, text: str) -> None:
        """Records a line that is shown now."""
        self.lines.append(Line(time.monotonic(), text.rstrip()))


def record(kubectl: Sequence[str], task: Sequence[str]) -> tuple[Screen, Screen, list[str]]:
    """Runs the demo; returns the two terminals and the names of the pods that answered."""
    commands, log = Screen(), Screen()
    commands.show("$ ./taskw deploy")
    for line in _run([*task, "deploy"]):
        if _SHOWN.search(line):
            commands.show(line)
    _call_faster(kubectl)
    hosts: list[str] = []
    log.show("$ kubectl logs -f deployment/hello-client")
    with _following(kubectl, log, hosts):
        _pause(lambda: len(hosts) >= 2, 3)
        _show_command(kubectl, commands, "scale --replicas=5 deployments.apps/hello-server")
        _pause(lambda: len(hosts) >= 5, 4)
        # The pods of the new version first, so that no call waits for them.
        subprocess.run([*kubectl, "apply", "-f", str(ROOT / "k8s/examples/canary/server.yaml")], check=True)
        _wait_for_rollout(kubectl, "hello-server-v2")
        _show_command(kubectl, commands, "apply -f k8s/examples/canary/route.yaml")
        _pause(lambda: any("v2" in host for host in hosts), 6)
        _show_command(kubectl, commands, "apply -f k8s/examples/canary/all.yaml")
        _pause(lambda: True, 5)
    return commands, log, hosts


def _run(command: Sequence[str]) -> Iterator[str]:
    """Yields the lines of a command's output as they come."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield from process.stdout or ()
    if process.returncode:
        raise SystemExit(f"record: {' '.join(command)} failed with exit code {process.returncode}")


def _show_command(kubectl: Sequence[str], screen: Screen, arguments: str) -> None:
    screen.show(f"$ kubectl {arguments}")
    for line in _run([*kubectl, *arguments.split()]):
        screen.show(line)


def _call_faster(kubectl: Sequence[str]) -> None:
    """Restarts the client with a shorter interval, and waits until its old pod is gone: `kubectl logs` might take that."""
    name = "app.kubernetes.io/name=hello-client"
    command = [*kubectl, "get", "pods", "--selector", name, "--output", "name"]
    old = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    interval = f"INTERVAL={1 / CALLS_A_SECOND}"
    subprocess.run([*kubectl, "set", "env", "deployment/hello-client", interval], check=True)
    _wait_for_rollout(kubectl, "hello-client")
    command = [*kubectl, "wait", "--for=delete", f"--timeout={LONGEST_WAIT:.0f}s", *old]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _wait_for_rollout(kubectl: Sequence[str], name: str) -> None:
    command = [*kubectl, "rollout", "status", f"deployment/{name}", f"--timeout={LONGEST_WAIT:.0f}s"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _following(kubectl: Sequence[str], screen: Screen, hosts: list[str]) -> Iterator[None]:
    """Follows the client's log, and notes the hosts that answer, in the order of their first replies."""
    # The line that kubectl begins with, "Found 2 pods", is no part of the log.
    command = [*kubectl, "logs", "-f", "--tail=1", "deployment/hello-client"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:

        def read() -> None:
            for line in process.stdout or ():
                if reply := _REPLY.search(line):
                    screen.show(f"reply message='{reply[1]}'")
                    if (host := _HOST.search(reply[1])) and host[1] not in hosts:
                        hosts.append(host[1])

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            reader.join()


def _pause(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until a condition holds, and then for so many seconds."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("record: what should be shown did not happen; see the log of hello-client")
        time.sleep(0.05)
    time.sleep(seconds)


def shorten(screens: Sequence[Sequence[Line]], longest: float) -> list[list[Line]]:
    """Moves lines to times that begin with 0, with no pause of all screens longer than that, in seconds."""
    times = sorted({line.at for lines in screens for line in lines})
    moved, now = {}, 0.0
    for before, at in zip([*times[:1], *times], times, strict=False):
        now += min(at - before, longest)
        moved[at] = now
    return [[Line(round(moved[line.at], 2), line.text) for line in lines] for lines in screens]


def main() -> None:
    """Records, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubectl", required=True, help="kubectl with its context, as one argument")
    parser.add_argument("--task", required=True, help="Task with its variables, as one argument")
    arguments = parser.parse_args()
    commands, log, hosts = record(arguments.kubectl.split(), arguments.task.split())
    above, below = shorten([commands.lines, log.lines], LONGEST_PAUSE)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(
        draw([Terminal("Terminal 1", 10, above), Terminal("Terminal 2: the client's log", 16, below, hosts)])
    )
    print(
        f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size} bytes, {len(log.lines)} lines", file=sys.stderr
    )


if __name__ == "__main__":
    main()
