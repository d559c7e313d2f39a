"""What `local-demo` does when things are not as they should be: arguments, ports, readers, leftovers."""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from local_demo import environment
from local_demo.state import State
from tests.local import demo
from tests.support import running
from tests.support.waiting import DEADLINE, wait_until


def local_demo(*arguments: str, **settings: str) -> tuple[int, str, str]:
    result = running.run("local-demo", *arguments, env=demo.environment(**settings))
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("command", [(), ("up",), ("scale",), ("stop",)])
def test_help(command: tuple[str, ...]) -> None:
    code, output, _ = local_demo(*command, "--help")
    assert code == 0
    assert "Usage: local-demo" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("scale", "hello-serer", "3"),
            "unknown service 'hello-serer': must be hello-server or howdy-server",
        ),
        (("scale", "hello-server", "three"), "'three' must be a whole number between 0 and 50"),
        (("scale", "hello-server", "-1"), "'-1' must be a whole number between 0 and 50"),
        (("scale", "hello-server", "51"), "'51' must be a whole number between 0 and 50"),
        (("scale", "hello-server", "3"), "nothing runs in"),
        (("scale", "hello-server"), "REPLICAS"),
        (("down",), "'down'"),
    ],
)
def test_a_wrong_command_line(arguments: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    directory = ["--directory", str(tmp_path)] if arguments[0] == "scale" else []
    code, output, error = local_demo(*arguments, *directory)
    assert (code, output) == (2, "")
    assert error.count("\n") == 1
    assert complaint in error


@pytest.mark.parametrize("variable", ["LISTEN", "ADMIN_LISTEN", "DEBUG_LISTEN"])
def test_a_port_that_is_taken(variable: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, error = local_demo(
            "up", "--directory", str(tmp_path), **{variable: f"127.0.0.1:{port}"}
        )
    assert (code, output) == (1, "")
    assert error.count("\n") == 1
    assert variable in error
    assert f"port {port} is in use" in error


def test_an_address_that_is_none(tmp_path: Path) -> None:
    code, _, error = local_demo("up", "--directory", str(tmp_path), LISTEN="18000")
    assert code == 2
    assert "LISTEN=18000: must be HOST:PORT" in error


def test_stop_where_nothing_ever_ran(tmp_path: Path) -> None:
    code, output, error = local_demo("stop", "--directory", str(tmp_path / "none"))
    assert (code, error) == (0, "")
    assert "nothing runs" in output
    assert not (tmp_path / "none").exists()


def test_stop_ends_what_is_left_and_nothing_else(tmp_path: Path) -> None:
    """Where the kernel doesn't end the programs of a killed supervisor, their locked files tell which they are."""
    folder = tmp_path / "processes"
    folder.mkdir()
    with (folder / "hello-server-1").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left = subprocess.Popen(["sleep", "600"], pass_fds=[file.fileno()])
        file.write(str(left.pid))
    with subprocess.Popen(["sleep", "600"]) as stranger:
        # The number in a file that nobody has locked may be anybody's by now.
        (folder / "hello-server-2").write_text(str(stranger.pid))
        code, output, _ = local_demo("stop", "--directory", str(tmp_path))
        assert code == 0
        assert "hello-server-1" in output
        assert left.wait(DEADLINE) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_id_that_only_an_observer_has_locked_is_nobody(tmp_path: Path) -> None:
    """The supervisor was killed, its number may be anybody's by now, and two commands look at its file."""
    with subprocess.Popen(["sleep", "600"]) as stranger, (tmp_path / "lock").open("w+") as lock:
        lock.write(str(stranger.pid))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_SH)
        seen = State(tmp_path).supervisor()
        stranger.kill()
    assert seen is None


def test_the_debug_address_is_the_users_or_a_default() -> None:
    assert str(environment.listening({}, Path("tls")).debug) == "127.0.0.1:18081"
    assert environment.listening({"DEBUG_LISTEN": ""}, Path("tls")).debug is None
    where = environment.listening({"DEBUG_LISTEN": "127.0.0.1:1"}, Path("tls"))
    assert environment.of_xds_server({}, where, Path("x"))["DEBUG_LISTEN"] == "127.0.0.1:1"


def test_a_state_directory_that_is_removed_ends_the_demo_in_order(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with demo.Demo(directory) as running_demo:
        running_demo.wait_until_up()
        pids = running_demo.pids()
        directory.rename(tmp_path / "elsewhere")
        assert running_demo.wait() == 1
        [line] = [line for line in running_demo.lines if "has been removed" in line]
        assert line.startswith("local-demo: error: the demo has ended: ")
        assert str(directory) in line
        assert not any("Traceback" in line or "ExceptionGroup" in line for line in running_demo.lines)
        for client in demo.CLIENTS:
            assert any(record.get("period") == "in all" for record in running_demo.log(client))
        assert not demo.alive(pids)


@contextmanager
def written_to_a_pipe(
    directory: Path,
) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes], dict[str, str]]]:
    env = demo.environment()
    command = [str(running.BIN / "local-demo"), "up", "--directory", str(directory)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout, env
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("reader", ["asleep", "gone"])
def test_output_that_nobody_reads_stops_nothing(reader: str, tmp_path: Path) -> None:
    with written_to_a_pipe(tmp_path) as (process, pipe, env):
        capacity = shrink(pipe)
        wait_until("the pipe to be full", lambda: unread(pipe) > 0.7 * capacity)
        if reader == "gone":
            pipe.close()
        for command in (["scale", "hello-server", "3"], ["stop"]):
            result = running.run("local-demo", *command, "--directory", str(tmp_path), env=env)
            assert result.returncode == 0, result.stderr
        assert process.wait(DEADLINE) == 0


def shrink(pipe: IO[bytes]) -> int:
    """Make a pipe that is soon full, where that can be done; return how much it holds."""
    return fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 4096) if sys.platform == "linux" else 65_536


def unread(pipe: IO[bytes]) -> int:
    """Bytes that wait in a pipe."""
    answer = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, struct.pack("i", 0))
    (count,) = struct.unpack("i", answer)
    return int(count)


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals(settings: dict[str, str], tmp_path: Path, *, coloured: bool) -> None:
    ours, theirs = os.openpty()
    command = [str(running.BIN / "local-demo"), "up", "--directory", str(tmp_path)]
    env = demo.environment(**settings)
    with subprocess.Popen(command, env=env, stdout=theirs, start_new_session=True) as process:
        os.close(theirs)
        seen = b""
        while b"is ready" not in seen:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while True:
                seen += os.read(ours, 4096)
        except OSError:  # the other end is closed
            os.close(ours)
        assert process.wait(DEADLINE) == 0
    assert (b"\x1b[" in seen) is coloured
    assert b"everything has ended" in seen
