"""What the timelines say that `echo call` reports: pure, so that it can be tested."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypedDict


class Bucket(TypedDict):
    """A part of the time.

    Attributes:
        at: When it begins, in Unix time.
        hosts: How many calls each replica answered.
        failed: How many failed.
    """

    at: float
    hosts: Mapping[str, int]
    failed: int


def spread(hosts: Mapping[str, int], replicas: int) -> list[float]:
    """Percent of the calls that each replica answered, the busiest first."""
    counts = sorted(hosts.values(), reverse=True)
    counts += [0] * (replicas - len(counts))
    return [count / sum(counts) * 100 for count in counts]


def newcomers(timelines: Sequence[Sequence[Bucket]], since: float) -> set[str]:
    """The replicas that answered nobody before."""
    buckets = [bucket for timeline in timelines for bucket in timeline]
    seen = {host for bucket in buckets for host in bucket["hosts"]}
    return seen - {host for bucket in buckets if bucket["at"] < since for host in bucket["hosts"]}


def share(timeline: Sequence[Bucket], of: AbstractSet[str]) -> list[tuple[float, float]]:
    """What percent of the calls that were answered these replicas answered, by time."""
    found = []
    for bucket in timeline:
        if answered := sum(bucket["hosts"].values()):
            theirs = sum(count for host, count in bucket["hosts"].items() if host in of)
            found.append((bucket["at"], theirs / answered * 100))
    return found


def since(points: Sequence[tuple[float, float]], least: float) -> float | None:
    """From when on all is at least so much."""
    found = None
    for at, value in points:
        if value < least:
            found = None
        elif found is None:
            found = at
    return found
