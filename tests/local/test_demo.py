"""The demo as a user sees it: up, scaled, broken and healed, down."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.demo import CLIENTS, SERVERS, Demo, alive
from tests.support.waiting import wait_until


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with Demo(tmp_path / "state") as demo:
        demo.wait_until_up()
        yield demo


def test_replies_alternate_between_the_replicas_although_they_are_in_two_zones(demo: Demo) -> None:
    for client, server in zip(CLIENTS, SERVERS, strict=True):
        assert demo.wait_for_answers_of(client, 2) == {f"{server}-1", f"{server}-2"}
        brought = [
            record for record in demo.log(client) if record.get("type") == "EDS" and "endpoints" in record
        ]
        places = {endpoint.split()[-1] for endpoint in brought[-1]["endpoints"]}
        assert places == {"zone-a", "zone-b"}

    totals = demo.end()
    assert [total["failed"] for total in totals.values()] == [0, 0], "nothing fails while everything comes up"


def test_a_proxy_is_for_what_leaves_this_machine(tmp_path: Path) -> None:
    with Demo(tmp_path, http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9") as demo:
        demo.wait_until_up()
        demo.end()


def test_scaling_up_to_zero_and_back(demo: Demo) -> None:
    first = demo.wait_for_answers_of("hello-client", 2)

    demo.scale("hello-server", 5)
    assert demo.wait_for_answers_of("hello-client", 5) > first

    demo.scale("hello-server", 0)
    # The last to drain may be asked once more when it has gone; then nobody is left to be asked.
    wait_until(
        "an error that tells the cause",
        lambda: any("no ready pod" in failure.get("hint", "") for failure in demo.failures("hello-client")),
    )
    # Kubernetes leaves a slice without ports to a service without pods.
    wait_until("the last replica to be gone", (demo.directory / "objects/hello-server-empty.yaml").exists)

    demo.scale("hello-server", 2)
    healed = demo.wait_for_answers_of("hello-client", 2)
    assert healed == {"hello-server-6", "hello-server-7"}, "no name is used twice"
    assert not demo.failures("howdy-client"), "the other service has no part in it"
    demo.end()


def test_scaling_fails_no_call(demo: Demo) -> None:
    for replicas in (5, 1, 3):
        demo.scale("hello-server", replicas)
        demo.wait_for_answers_of("hello-client", replicas)
    assert demo.end()["hello-client"]["failed"] == 0


def test_calls_go_on_while_xds_server_is_killed_and_changes_are_seen_when_it_is_back(demo: Demo) -> None:
    demo.wait_for_answers_of("hello-client", 2)
    demo.send_to("xds-server", signal.SIGKILL)
    demo.wait_for_line("local", "xds-server was killed by SIGKILL", "starting again")
    demo.scale("hello-server", 3)
    demo.wait_for_answers_of("hello-client", 3)
    totals = demo.end()
    assert [total["failed"] for total in totals.values()] == [0, 0]


def test_clients_that_are_asked_to_connect_anew_fail_no_call(tmp_path: Path) -> None:
    with Demo(tmp_path, MAX_CONNECTION_AGE="1") as demo:
        demo.wait_until_up()

        def connected_anew() -> bool:
            opened = [
                record["node"] for record in demo.log("xds-server") if record["event"] == "stream opened"
            ]
            return all(opened.count(f"{client}.default") >= 3 for client in CLIENTS)

        wait_until("both clients to have connected three times", connected_anew)
        demo.scale("hello-server", 3)
        demo.wait_for_answers_of("hello-client", 3)
        assert [total["failed"] for total in demo.end().values()] == [0, 0]


def test_a_killed_replica_answers_again(demo: Demo) -> None:
    names = demo.wait_for_answers_of("hello-client", 2)
    demo.send_to("hello-server-1", signal.SIGKILL)
    demo.wait_for_line("local", "hello-server-1 was killed by SIGKILL", "starting again")
    assert demo.wait_for_answers_of("hello-client", 2) == names
    demo.end()


def test_a_replica_that_hangs_is_not_called_until_it_goes_on(tmp_path: Path) -> None:
    with Demo(tmp_path, TIMEOUT="1") as demo:
        demo.wait_until_up()
        demo.send_to("hello-server-1", signal.SIGSTOP)
        demo.wait_for_line("local", "hello-server-1 is not ready")
        assert demo.wait_for_answers_of("hello-client", 1) == {"hello-server-2"}
        demo.send_to("hello-server-1", signal.SIGCONT)
        demo.wait_for_answers_of("hello-client", 2)
        demo.end()


def test_a_program_that_keeps_ending_is_started_with_a_growing_pause(tmp_path: Path) -> None:
    with Demo(tmp_path, INTERVAL="often") as demo:
        demo.wait_for_line("hello-client", "INTERVAL=often")
        for pause in ("at once", "in 1 s", "in 2 s"):
            demo.wait_for_line("local", "hello-client ended with exit code 2", f"starting again {pause}")
        demo.send_to_group(signal.SIGINT)
        assert demo.wait() == 0


def test_a_killed_client_starts_again(demo: Demo) -> None:
    demo.send_to("howdy-client", signal.SIGKILL)
    demo.wait_for_line("local", "howdy-client was killed by SIGKILL", "starting again")
    demo.wait_for_answers_of("howdy-client", 2)
    demo.end()


def test_stop_ends_it_and_says_so(demo: Demo) -> None:
    result = demo.command("stop")
    assert (result.returncode, result.stderr) == (0, "")
    assert "has ended" in result.stdout
    assert demo.wait() == 0

    result = demo.command("stop")
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing runs" in result.stdout


def test_a_second_ctrl_c_kills_what_does_not_end(demo: Demo) -> None:
    pids = demo.pids()
    # A stopped process takes no notice of anything but SIGKILL.
    demo.send_to("hello-client", signal.SIGSTOP)
    demo.send_to_group(signal.SIGINT)
    demo.wait_for_line("local", "stopping")

    def given_up() -> bool:
        demo.send_to_group(signal.SIGINT)
        return any("everything has been killed" in line for line in demo.lines)

    wait_until("it to give up", given_up)
    assert demo.wait() == 128 + signal.SIGINT
    assert not alive(pids)


def test_no_program_outlives_a_killed_supervisor(demo: Demo) -> None:
    pids = demo.pids()
    demo.send(signal.SIGKILL)
    demo.wait()
    # On Linux the kernel has ended them; elsewhere `stop` does, as does the next `up`.
    assert demo.command("stop").returncode == 0
    wait_until("no program to be left", lambda: not alive(pids))

    with Demo(demo.directory) as again:
        again.wait_until_up()
        again.end()


def test_a_second_demo_in_the_same_directory_is_refused(demo: Demo) -> None:
    result = demo.command("up")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"runs already in {demo.directory} (process {demo.pid})" in result.stderr
    demo.end()
