"""What bench makes of who answered when."""

from bench import timeline
from bench.timeline import Bucket


def bucket(at: float, **hosts: int) -> Bucket:
    return {"at": at, "hosts": hosts, "failed": 0}


def test_the_spread_counts_the_replicas_that_answer_nothing():
    assert timeline.spread({"a": 1, "b": 3}, replicas=4) == [75, 25, 0, 0]


def test_newcomers_are_those_that_answered_nobody_before():
    one = [bucket(1, a=5), bucket(2, a=5, c=1)]
    other = [bucket(1, b=5), bucket(2, b=5, d=1)]
    assert timeline.newcomers([one, other], since=2) == {"c", "d"}


def test_a_share_is_of_what_was_answered():
    found = timeline.share([bucket(1, a=4), bucket(2), bucket(3, a=3, b=1)], of={"b"})
    assert found == [(1, 0), (3, 25)]


def test_since_is_when_it_stays():
    assert timeline.since([(1, 60), (2, 10), (3, 60), (4, 61)], least=54) == 3
    assert timeline.since([(1, 60), (2, 10)], least=54) is None
