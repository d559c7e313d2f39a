"""The client's schedule, counts and settings."""

import itertools

import pytest

from greeting.client.program import headers, next_call
from greeting.client.settings import ClientSettings, is_xds
from greeting.client.spread import Spread
from servicekit.errors import ConfigurationError
from servicekit.settings import read


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (100.0, 103.0),
        (100.004, 103.0),
        (102.999, 103.0),
        (103.0, 103.0),
        (103.5, 106.0),
        (105.0, 106.0),
        (160.5, 163.0),
    ],
)
def test_the_next_call_is_on_schedule_and_a_long_one_causes_no_burst(now: float, due: float) -> None:
    assert next_call(100, now, 3) == due


def test_the_schedule_does_not_drift() -> None:
    calls = itertools.accumulate(range(1000), lambda due, _: next_call(due, due + 0.01, 0.05), initial=50.0)
    assert list(calls)[-1] == pytest.approx(100.0)


def test_the_spread() -> None:
    spread = Spread()
    for hostname in ("b", "a", "b"):
        spread.replied(hostname)
    spread.failed()
    assert "a" in spread
    assert "c" not in spread
    message = spread.message("last minute")
    assert message.facts == {"period": "last minute", "replies": 3, "failed": 1, "hosts": {"a": 1, "b": 2}}
    assert list(message.facts["hosts"]) == ["a", "b"]


@pytest.mark.parametrize(
    "target", ["xds:///a", "xds:a", "xds://authority/a", "XDS:///a", "localhost:50051", "dns:///a:1"]
)
def test_targets(target: str) -> None:
    assert ClientSettings(target=target).target == target
    assert is_xds(target) == target.lower().startswith("xds:")


@pytest.mark.parametrize("target", ["xds://hello-server.default:50051", "xds:///", "xds:", "xds://"])
def test_an_xds_target_without_a_name(target: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(ClientSettings, {"target": target})
    assert str(error.value) == (
        f"--target={target}: must be xds:///SERVICE.NAMESPACE:PORT, with three slashes, or another gRPC target"
    )


def test_headers_are_sent_with_each_value_in_turn() -> None:
    metadata = read(ClientSettings, {"target": "a", "metadata": "x-user=ann|bob, x-beta=yes"}).metadata
    assert [headers(metadata, call) for call in range(3)] == [
        (("x-user", "ann"), ("x-beta", "yes")),
        (("x-user", "bob"), ("x-beta", "yes")),
        (("x-user", "ann"), ("x-beta", "yes")),
    ]
    assert headers(read(ClientSettings, {"target": "a"}).metadata, 0) == ()


@pytest.mark.parametrize(
    "text", ["x-user", "=ann", "X-User=ann", "a-bin=x", "grpc-timeout=1", "a=b,", "a=\n"]
)
def test_headers_that_grpc_would_refuse(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be NAME=VALUE"):
        read(ClientSettings, {"target": "a", "metadata": text})


@pytest.mark.parametrize("text", ["0", "1001", "many"])
def test_concurrency_is_a_number(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--concurrency"):
        read(ClientSettings, {"target": "a", "concurrency": text})
