"""The rate limit for log lines: a burst, then a rate, by key, in bounded memory."""

import threading

from servicekit.log_limits import LogLimiter


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_then_one_line_in_each_period() -> None:
    clock = Clock()
    limiter = LogLimiter(burst=3, per_second=0.5, clock=clock)
    assert [limiter.allow("a") for _ in range(5)] == [0, 0, 0, None, None]
    clock.now += 1.9
    assert limiter.allow("a") is None
    clock.now += 0.1
    assert limiter.allow("a") == 3, "as many as were suppressed since the last line"
    assert limiter.allow("a") is None
    clock.now += 2
    assert limiter.allow("a") == 1


def test_a_key_that_was_quiet_has_a_burst_again_and_no_more() -> None:
    clock = Clock()
    limiter = LogLimiter(burst=2, per_second=1, clock=clock)
    assert [limiter.allow("a") for _ in range(3)] == [0, 0, None]
    clock.now += 3600
    assert [limiter.allow("a") for _ in range(3)] == [1, 0, None]


def test_keys_do_not_share_a_limit() -> None:
    limiter = LogLimiter(burst=1, per_second=1, clock=Clock())
    assert [limiter.allow(key) for key in "abab"] == [0, 0, None, None]


def test_the_keys_that_were_used_least_recently_are_forgotten() -> None:
    limiter = LogLimiter(burst=1, per_second=1, clock=Clock(), max_keys=2)
    assert [limiter.allow(key) for key in ("a", "b", "a")] == [0, 0, None]
    assert limiter.allow("c") == 0, "b is forgotten"
    assert limiter.allow("a") is None
    assert limiter.allow("b") == 0


def test_several_threads_get_no_more_than_the_burst() -> None:
    limiter = LogLimiter(burst=100, per_second=1, clock=Clock())
    allowed: list[int] = []

    def use() -> None:
        allowed.extend(1 for _ in range(1_000) if limiter.allow("a") is not None)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 100
