"""How batches shrink and grow, played through against a server that exists only here."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import example, given
from hypothesis import strategies as st

from tracker.delivery.sizing import Sizing


def play(sizes: list[int], bad: set[int], limit: int, sizing: Sizing) -> tuple[list[int], int]:
    """Send events of `sizes` as the uploader does; return the delivered and the requests made."""
    pending = list(range(len(sizes)))
    delivered: list[int] = []
    requests = 0
    while pending:
        batch = [pending[0]]
        total = sizes[pending[0]]
        for event in pending[1 : sizing.max_events]:
            if total + sizes[event] > sizing.max_bytes:
                break
            batch.append(event)
            total += sizes[event]
        requests += 1
        assert requests < 10_000
        if total > limit:
            if len(batch) > 1:
                sizing.too_large(total)
                continue
            sizing.found()
        elif bad.intersection(batch):
            if len(batch) > 1:
                sizing.invalid(len(batch))
                continue
            sizing.found()
        else:
            delivered += batch
            sizing.passed(len(batch))
        del pending[: len(batch)]
    return delivered, requests


@given(st.integers(1, 150), st.sets(st.integers(0, 149), max_size=10))
@example(500, set())
@example(500, {0})
@example(500, {499})
@example(100, set(range(100)))
@example(1, {0})
def test_bisection_finds_exactly_the_bad_ones(count: int, bad: set[int]) -> None:
    """All others are delivered in order, in a number of requests that is bounded."""
    bad = {index for index in bad if index < count}
    sizing = Sizing(500, 10**9)
    delivered, requests = play([1] * count, bad, 10**9, sizing)
    assert delivered == [index for index in range(count) if index not in bad]
    # For each bad one at most two requests a halving, one for itself, and one that goes on.
    assert requests <= 1 + len(bad) * (2 * ceil(log2(count + 1)) + 2)
    if not bad:
        assert requests == 1


@given(
    st.lists(st.integers(1, 1_000), min_size=1, max_size=300),
    st.integers(50, 100_000),
    st.sets(st.integers(0, 299), max_size=5),
)
def test_a_servers_limit_is_found_and_costs_only_what_cannot_fit(
    sizes: list[int], limit: int, bad: set[int]
) -> None:
    """Every event within the limit arrives in order, whatever else is wrong with others."""
    delivered, _ = play(sizes, bad, limit, Sizing(500, 4_000_000))
    assert delivered == [
        index for index, size in enumerate(sizes) if size <= limit and index not in bad
    ]


@given(st.integers(1_000, 499_000))
def test_the_size_that_passed_is_remembered(limit: int) -> None:
    """Once found, the limit is not run into again, and half of it at least is used."""
    sizing = Sizing(500, 4_000_000)
    play([1_000] * 1_000, set(), limit, sizing)
    found = sizing.max_bytes
    assert found >= limit // 2
    delivered, _ = play([1_000] * 1_000, set(), limit, sizing)
    assert len(delivered) == 1_000
    assert sizing.max_bytes == found


def test_every_hundred_batches_a_larger_one_is_tried() -> None:
    """A server that takes more by now gets more, and one that does not is asked seldom."""
    sizing = Sizing(500, 4_000_000)
    sizing.too_large(1_000_000)
    for size in (500_000, 1_000_000, 2_000_000):
        for _ in range(100):
            assert sizing.max_bytes == size
            sizing.passed(10)
    assert sizing.max_bytes == 4_000_000
    sizing.too_large(4_000_000)
    for _ in range(99):
        sizing.passed(10)
    assert sizing.max_bytes == 2_000_000, "a size that was refused counts from the beginning"


def test_a_slow_link_gets_smaller_batches_until_it_carries_them() -> None:
    """Each timeout halves the size, each success doubles it, up to where it began."""
    sizing = Sizing(500, 4_000_000)
    sizing.timed_out(4_000_000)
    sizing.timed_out(2_000_000)
    assert sizing.max_bytes == 1_000_000
    sizing.passed(10)
    assert sizing.max_bytes == 2_000_000
    for _ in range(10):
        sizing.passed(10)
    assert sizing.max_bytes == 4_000_000


def test_a_slow_link_does_not_forget_the_servers_limit() -> None:
    """Growing again stops at what the server takes."""
    sizing = Sizing(500, 4_000_000)
    sizing.too_large(1_000_000)
    sizing.timed_out(500_000)
    for _ in range(20):
        sizing.passed(1)
    assert sizing.max_bytes == 500_000


def test_a_thousand_timeouts_still_leave_room_for_an_event() -> None:
    """The bounds never reach nothing."""
    sizing = Sizing(500, 4_000_000)
    for _ in range(1_000):
        sizing.timed_out(1)
        sizing.too_large(1)
    assert sizing.max_bytes >= 1
    assert sizing.max_events >= 1
