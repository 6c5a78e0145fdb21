"""The token bucket: its promise is about every minute, not about the average."""

from __future__ import annotations

from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracker.sync.rate_limit import TokenBucket

# Powers of two, so that adding them up is exact.
STEPS = st.lists(st.sampled_from([0.0, 0.0, 0.125, 0.25, 1.0, 16.0, 64.0, 512.0]), max_size=300)


@given(st.integers(1, 200), STEPS)
@example(1, [1.0] * 130)
@example(60, [1.0] * 130)
@example(120, [512.0] + [0.5] * 130)
@example(5_000, [1.0] * 62)
def test_no_minute_ever_holds_more_than_the_bound(per_minute: int, steps: list[float]) -> None:
    """Whatever the times at which somebody asks, idle hours before included."""
    now = 1000.0
    bucket = TokenBucket(per_minute, now)
    window: deque[float] = deque()
    for step in steps:
        now += step
        # An impatient caller: asks again and again until refused.
        while bucket.take(now) == 0.0:
            window.append(now)
            while window[0] < now - 60:
                window.popleft()
            assert len(window) <= per_minute


@settings(max_examples=30)
@given(st.integers(1, 5_000), st.floats(0, 1e6))
def test_who_waits_as_told_is_let_through(per_minute: int, start: float) -> None:
    """The answer is a wait that suffices, and in the long run the rate is nearly the bound's."""
    now = start
    bucket = TokenBucket(per_minute, now)
    taken = 0
    while now < start + 600:
        wait = bucket.take(now)
        if wait == 0.0:
            taken += 1
            continue
        assert 0 < wait <= 120.1
        now += max(wait, 0.001)
    assert taken >= 4 * per_minute


def test_a_full_rate_comes_in_bursts_of_a_second_at_most() -> None:
    """5,000 a minute are not 5,000 at once."""
    bucket = TokenBucket(5_000, 0.0)
    burst = 0
    while bucket.take(0.0) == 0.0:
        burst += 1
    assert burst == 83
