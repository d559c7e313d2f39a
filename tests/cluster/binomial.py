"""How many of a number of calls take a way that has a share of all calls, if each call is decided by itself."""

from fractions import Fraction
from math import comb


def interval(calls: int, share: float, confidence: float = 0.999) -> tuple[int, int]:
    """Returns the least and the greatest count that are not improbable: each tail beyond them has half the rest."""
    tail = (1 - confidence) / 2
    probabilities = [_probability(count, calls, Fraction(share)) for count in range(calls + 1)]
    least, greatest = 0, calls
    below = above = 0.0
    while (below := below + probabilities[least]) < tail:
        least += 1
    while (above := above + probabilities[greatest]) < tail:
        greatest -= 1
    return least, greatest


def _probability(count: int, calls: int, share: Fraction) -> float:
    return float(comb(calls, count) * share**count * (1 - share) ** (calls - count))
