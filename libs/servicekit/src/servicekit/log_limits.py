"""A rate limit for log lines that a client can cause, so that no client fills the log.

Pure but for its clock.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    """The lines that a key may still cause (a token bucket), and how many were suppressed since the last one."""

    tokens: float
    filled_at: float
    suppressed: int = 0


class LogLimiter:
    """Decides which lines are written: for each key `burst` at once, then `per_second`.

    It may be used from several threads. The keys that were used least recently are forgotten.

    Args:
        burst: How many lines of one key may come at once.
        per_second: How many lines of one key a second may come in the long run.
        clock: Returns seconds, and never goes back.
        max_keys: How many keys are remembered.
    """

    def __init__(
        self,
        burst: int,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = 4096,
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, key: str) -> int | None:
        """Returns None if a line with this key must not be written now.

        Otherwise returns how many lines with this key were suppressed since the last one that was allowed.
        """
        now = self._clock()
        with self._lock:
            bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
            gained = (now - bucket.filled_at) * self._per_second
            bucket.tokens = min(self._burst, bucket.tokens + gained)
            bucket.filled_at = now
            if bucket.tokens < 1:
                bucket.suppressed += 1
                return None
            bucket.tokens -= 1
            suppressed, bucket.suppressed = bucket.suppressed, 0
            return suppressed
