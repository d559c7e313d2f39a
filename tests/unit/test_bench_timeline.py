"""Tests of bench/timeline.py."""

from bench import timeline
from bench.timeline import Bucket


def bucket(at: float, **hosts: int) -> Bucket:
    return {"at": at, "hosts": hosts, "failed": 0}


def test_the_spread_includes_replicas_without_answers():
    assert timeline.spread({"a": 1, "b": 3}, replicas=4) == [75, 25, 0, 0]


def test_new_replicas_are_those_without_earlier_answers():
    one = [bucket(1, a=5), bucket(2, a=5, c=1)]
    other = [bucket(1, b=5), bucket(2, b=5, d=1)]
    assert timeline.new_replicas([one, other], since=2) == {"c", "d"}


def test_a_share_is_relative_to_answered_calls():
    found = timeline.share([bucket(1, a=4), bucket(2), bucket(3, a=3, b=1)], of={"b"})
    assert found == [(1, 0), (3, 25)]


def test_since_is_when_all_later_values_are_high_enough():
    assert timeline.since([(1, 60), (2, 10), (3, 60), (4, 61)], least=54) == 3
    assert timeline.since([(1, 60), (2, 10)], least=54) is None
