"""Evaluates the timelines that `echo call` reports. Pure functions, so that they can be tested."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypedDict


class Bucket(TypedDict):
    """An interval of a timeline.

    Attributes:
        at: Its begin, in Unix time.
        hosts: The number of calls that each replica answered.
        failed: The number of calls that failed.
    """

    at: float
    hosts: Mapping[str, int]
    failed: int


def spread(hosts: Mapping[str, int], replicas: int) -> list[float]:
    """Returns the percentage of calls that each replica answered, the busiest first."""
    counts = sorted(hosts.values(), reverse=True)
    counts += [0] * (replicas - len(counts))
    return [count / sum(counts) * 100 for count in counts]


def new_replicas(timelines: Sequence[Sequence[Bucket]], since: float) -> set[str]:
    """Returns the replicas that answered no call before `since`, in Unix time."""
    buckets = [bucket for timeline in timelines for bucket in timeline]
    seen = {host for bucket in buckets for host in bucket["hosts"]}
    return seen - {host for bucket in buckets if bucket["at"] < since for host in bucket["hosts"]}


def share(timeline: Sequence[Bucket], of: AbstractSet[str]) -> list[tuple[float, float]]:
    """Returns the percentage of the answered calls that these replicas answered, by time."""
    found = []
    for bucket in timeline:
        if answered := sum(bucket["hosts"].values()):
            theirs = sum(count for host, count in bucket["hosts"].items() if host in of)
            found.append((bucket["at"], theirs / answered * 100))
    return found


def since(points: Sequence[tuple[float, float]], least: float) -> float | None:
    """Returns the time from which on all values are at least `least`, or None."""
    found = None
    for at, value in points:
        if value < least:
            found = None
        elif found is None:
            found = at
    return found
