"""When to try again: how long pauses may be, and how long they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.delivery.retry import Backoff
from tracker.sync.destination import Delivery, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = [Outcome.UNAVAILABLE, Outcome.UNEXPECTED, Outcome.TIMED_OUT]


def longest(bound: float) -> float:
    return bound


def shortest(bound: float) -> float:
    return 0.0


@pytest.mark.parametrize("outcome", FAILURES)
def test_the_bound_doubles_up_to_the_cap(outcome: Outcome) -> None:
    """1, 2, 4 … seconds, never above the cap, however often it fails."""
    backoff = Backoff(1, 10, longest)
    pauses = [backoff.pause_after(Delivery(outcome)) for _ in range(2_000)]
    assert pauses[:5] == [1, 2, 4, 8, 10]
    assert set(pauses[5:]) == {10}


def test_jitter_is_full() -> None:
    """Pauses are spread from nothing to the bound, so that devices do not come back in step."""
    pauses = [Backoff(8, 300).pause_after(Delivery(Outcome.UNAVAILABLE)) for _ in range(2_000)]
    assert min(pauses) < 1
    assert max(pauses) > 7
    assert max(pauses) <= 8
    assert 3.5 < sum(pauses) / len(pauses) < 4.5


def test_a_success_begins_again() -> None:
    """After `reset` the first pause is short again."""
    backoff = Backoff(1, 100, longest)
    for _ in range(5):
        backoff.pause_after(Delivery(Outcome.UNAVAILABLE))
    backoff.reset()
    assert backoff.pause_after(Delivery(Outcome.UNAVAILABLE)) == 1


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.0, 0), (7.0, 7), (3600.0, 3600), (3601.0, 3600), (1e12, 3600)]
)
def test_retry_after_is_a_floor_of_at_most_an_hour(asked: float, pause: float) -> None:
    """As long as the server says, even above the cap."""
    backoff = Backoff(1, 5, shortest)
    assert backoff.pause_after(Delivery(Outcome.UNAVAILABLE, retry_after=asked)) == pause


def test_retry_after_does_not_shorten_a_pause() -> None:
    """A server that says 0 does not get a storm."""
    backoff = Backoff(4, 100, longest)
    assert backoff.pause_after(Delivery(Outcome.UNAVAILABLE, retry_after=0.0)) == 4


@given(st.integers(1, 30))
def test_a_refused_key_is_tried_slowly(attempts: int) -> None:
    """From the first refusal on, at least half the cap, at most the cap."""
    backoff = Backoff(0.1, 300)
    for _ in range(attempts):
        assert 150 <= backoff.pause_after(Delivery(Outcome.REFUSED)) <= 300


@pytest.mark.parametrize(("jitter", "pause"), [(shortest, 150), (longest, 300)])
def test_devices_with_a_refused_key_come_back_spread_over_half_the_cap(
    jitter: Callable[[float], float], pause: float
) -> None:
    """Otherwise all those whose key was revoked at once would ask at once, again and again."""
    assert Backoff(0.1, 300, jitter).pause_after(Delivery(Outcome.REFUSED)) == pause
