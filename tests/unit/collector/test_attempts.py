"""How often an address may fail to sign in."""

from __future__ import annotations

from tracker.collector.ui.attempts import MOST, SECONDS, Attempts


class Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_until_its_oldest_attempt_is_a_minute_old() -> None:
    """Not longer, and others do not wait for it."""
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(MOST):
        assert attempts.begin("one") == 0.0
        clock.now += 1
    assert attempts.begin("one") == SECONDS - MOST
    assert attempts.begin("other") == 0.0
    clock.now += SECONDS - MOST
    assert attempts.begin("one") == 0.0
    assert attempts.begin("one") == 1.0


def test_who_succeeds_is_not_counted() -> None:
    """However often."""
    attempts = Attempts(Clock())
    for _ in range(3 * MOST):
        assert attempts.begin("one") == 0.0
        attempts.succeeded("one")
    attempts.succeeded("unknown")


def test_addresses_without_number_take_no_memory_without_limit() -> None:
    """The oldest are forgotten."""
    attempts = Attempts(Clock())
    for _ in range(MOST):
        attempts.begin("first")
    for number in range(10_000):
        attempts.begin(f"address {number}")
    assert attempts.begin("first") == 0.0
