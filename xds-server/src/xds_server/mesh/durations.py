"""Durations as texts, such as ``10s``, ``1m30s`` and ``250ms``. Pure.

The format is that of the Gateway API (GEP-2257), which the API server can compare in CEL rules: a subset of what Go's
``time.ParseDuration`` takes. https://gateway-api.sigs.k8s.io/geps/gep-2257/
"""

import re

_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]+)(h|ms|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def parse(text: str) -> float:
    """Returns a duration in seconds.

    Raises:
        ValueError: It is not a duration; the text says what is expected.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 10s, 1m30s or 250ms")
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text)) / 1_000
