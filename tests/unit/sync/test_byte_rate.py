"""`ByteRate`: the mean over any time stays within the rate, but for one request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracker.sync.byte_rate import ByteRate

SIZES = st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 60), st.floats(0, 60)), min_size=1)


@given(st.integers(1, 5_000), SIZES)
def test_the_mean_holds(per_second: int, requests: list[tuple[int, float, float]]) -> None:
    """However long the requests take, and however long nothing is sent between them."""
    now = 0.0
    rate = ByteRate(per_second, now)
    begun: list[tuple[float, int]] = []
    for size, lasts, idle in requests:
        now += rate.wait(now)
        begun.append((now, size))
        rate.sent(size, now)
        now += lasts + idle
    for first, (start, _) in enumerate(begun):
        for last in range(first, len(begun)):
            bytes_before_last = sum(size for _, size in begun[first:last])
            assert bytes_before_last <= (begun[last][0] - start) * per_second + 1e-3


def test_time_that_a_request_took_is_not_waited_for_again() -> None:
    """A link that is itself as slow as the rate is used all the time."""
    rate = ByteRate(1_000, 0.0)
    rate.sent(8_000, began=0.0)
    assert rate.wait(5.0) == 3.0
    assert rate.wait(8.0) == 0.0


def test_without_a_rate_nothing_waits() -> None:
    """And batches are as large as they may be."""
    rate = ByteRate(None, 0.0)
    rate.sent(10**9, 0.0)
    assert rate.wait(0.0) == 0.0
    assert rate.batch_bytes(4_000_000, 30) == 4_000_000


def test_a_batch_is_carried_in_time_by_a_link_of_that_rate() -> None:
    """4 MiB at 1 kB a second would be cut off by the time limit of a request, for ever."""
    assert ByteRate(1_000, 0.0).batch_bytes(4 * 1024 * 1024, 30) == 30_000
    assert ByteRate(10**7, 0.0).batch_bytes(4 * 1024 * 1024, 30) == 4 * 1024 * 1024
    assert ByteRate(1, 0.0).batch_bytes(4 * 1024 * 1024, 0.1) == 1
