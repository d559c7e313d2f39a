"""Failed calls: which are logged, and with which hint. The details are gRPC's own words."""

from typing import Any

import pytest

from greeting.bootstrap import Bootstrap
from greeting.client.failures import Failures
from greeting.client.hints import hint, is_xds_server_unreachable
from greeting.client.message import Message

BOOTSTRAP = Bootstrap("GRPC_XDS_BOOTSTRAP_CONFIG", xds_server="xds-server:18000", node_id="pod")
UNREACHABLE = (
    "empty address list (LDS resource hello-server.default:50051: xDS channel for server xds-server:18000: channel in "
    "TRANSIENT_FAILURE: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:18000: Failed to "
    "connect to remote host: Connection refused (node ID:pod))"
)


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (UNREACHABLE, "no xDS server answers at xds-server:18000: "),
        (
            "Failed to create XdsClient: errors validating JSON: [field:x]",
            "correct it in GRPC_XDS_BOOTSTRAP_CONFIG",
        ),
        (
            "empty address list (LDS resource nosuch: does not exist (node ID:pod))",
            "xds:///SERVICE.NAMESPACE:PORT",
        ),
        ("EDS resource a.b:1: does not exist", "does not send it"),
        (
            "CDS resource a.b:1: invalid resource: errors validating Cluster",
            "refuses what the xDS server sent",
        ),
        (
            "no children in weighted_target policy (EDS resource a.b:1: contains no localities)",
            "has no ready pod",
        ),
        ("empty address list (EDS resource a.b:1: contains no localities)", "has no ready pod"),
        (
            "connections to all backends failing; last error: refused (CDS resource x: invalid resource: long ago)",
            "none of the endpoints can be reached",
        ),
    ],
)
def test_the_hint_for_a_known_cause(details: str, words: str) -> None:
    found = hint(details, BOOTSTRAP)
    assert found is not None
    assert words in found


def test_no_hint_for_an_unknown_cause_and_none_needs_a_bootstrap() -> None:
    assert hint("the dog ate it", BOOTSTRAP) is None
    assert hint("failed to connect to all addresses; last error: ...", None) is not None


def test_only_a_missing_xds_server_is_a_missing_xds_server() -> None:
    assert is_xds_server_unreachable(UNREACHABLE)
    assert not is_xds_server_unreachable("Deadline Exceeded")


def failure(calls: int, **facts: Any) -> Message:
    return Message(
        "call failed", {"status": "UNAVAILABLE", "details": "gone", "calls": calls} | facts, warning=True
    )


def test_a_slow_client_logs_each_failure() -> None:
    failures = Failures()
    logged = [failures.failed(now, "UNAVAILABLE", "gone", None) for now in (0.0, 0.99, 4.0)]
    assert logged == [failure(1)] * 3


def test_a_fast_client_logs_the_first_at_once_then_one_a_second_with_a_count() -> None:
    failures = Failures()
    logged = {call: failures.failed(call / 20, "UNAVAILABLE", "gone", "a hint") for call in range(41)}
    assert {call: message for call, message in logged.items() if message} == {
        0: failure(1, hint="a hint"),
        18: failure(18, hint="a hint"),
        36: failure(18, hint="a hint"),
    }


def test_details_are_one_line() -> None:
    message = Failures().failed(0, "UNKNOWN", "first\n  second ", None)
    assert message is not None
    assert message.facts["details"] == "first second"


def test_it_logs_when_calls_work_again_and_how_many_failed() -> None:
    failures = Failures()
    assert failures.succeeded(0) is None
    for now in (10.0, 10.1, 10.2):
        failures.failed(now, "UNAVAILABLE", "gone", None)
    assert failures.succeeded(12.5) == Message("calls work again", {"failed": 3, "seconds": 2.5})
    assert failures.succeeded(13) is None


def test_a_server_that_fails_every_other_call_does_not_fill_the_log() -> None:
    failures = Failures()
    logged = []
    for call in range(30):
        now = call / 20
        logged.append(
            failures.failed(now, "UNAVAILABLE", "gone", None) if call % 2 else failures.succeeded(now)
        )
    assert [message.event for message in logged if message] == ["call failed", "calls work again"] * 2


def test_a_failure_that_was_not_logged_is_no_beginning_of_a_later_outage() -> None:
    failures = Failures()
    failures.failed(0, "UNAVAILABLE", "gone", None)
    failures.succeeded(0.1)
    assert failures.failed(0.2, "UNAVAILABLE", "gone", None) is None
    assert failures.succeeded(0.3) is None
    assert failures.failed(3600, "UNAVAILABLE", "gone", None) == failure(2)
    assert failures.succeeded(3603) == Message("calls work again", {"failed": 1, "seconds": 3})
