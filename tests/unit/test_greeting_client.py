"""The client's rhythm, counts and settings."""

import itertools

import pytest

from greeting.client.program import next_beat
from greeting.client.settings import ClientSettings, is_xds
from greeting.client.spread import Spread
from servicekit.errors import ConfigurationError
from servicekit.settings import parse


@pytest.mark.parametrize(
    ("now", "beat"),
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
def test_the_next_call_is_on_the_beat_and_a_long_one_causes_no_burst(now: float, beat: float) -> None:
    assert next_beat(100, now, 3) == beat


def test_the_rhythm_does_not_drift() -> None:
    beats = itertools.accumulate(
        range(1000), lambda beat, _: next_beat(beat, beat + 0.01, 0.05), initial=50.0
    )
    assert list(beats)[-1] == pytest.approx(100.0)


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
        parse(ClientSettings, program="client", arguments=["--target", target])
    assert str(error.value) == (
        f"--target={target}: must be xds:///SERVICE.NAMESPACE:PORT, with three slashes, or another gRPC target"
    )
