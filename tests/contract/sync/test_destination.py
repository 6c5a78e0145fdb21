"""A destination of the application's own: what it answers, and what follows for the events."""

from __future__ import annotations

import functools
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.uploads import wait_until
from tracker import (
    AsyncLLMTracker,
    AsyncTracker,
    ConfigurationError,
    Delivery,
    LLMTracker,
    Outcome,
    Rejection,
    Tracker,
    Upload,
)
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig

    Answer = Callable[[Upload], Any]


def rejecting(*event_ids: Any) -> Answer:
    return lambda _: Delivery(Outcome.DELIVERED, rejected=[Rejection(i, "", "") for i in event_ids])


def delivered(**fields: Any) -> Answer:
    return lambda _: Delivery(**{"outcome": Outcome.DELIVERED, **fields})


def rejecting_twice(upload: Upload) -> Any:
    return rejecting(*upload.event_ids, *upload.event_ids)(upload)


NONSENSE: dict[str, Answer] = {
    "send returned None": lambda _: None,
    "its outcome is a value of type str": delivered(outcome="delivered"),
    "its retry_after is a value of type str": delivered(retry_after="5"),
    "its retry_after is a value of type bool": delivered(retry_after=True),
    "its rejected is a value of type list": delivered(rejected=["id"]),
    "its rejected is None": delivered(rejected=None),
    "it rejects 'nope', which was not sent": rejecting("nope"),
    "it rejects [], which was not sent": rejecting([]),
    "is named twice": rejecting_twice,
}


@pytest.mark.parametrize("problem", NONSENSE)
def test_an_answer_that_makes_no_sense_settles_nothing(
    problem: str, config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The log, the state and the health say why, and the usual backoff applies."""
    right = False

    class Destination:
        def send(self, upload: Upload) -> Any:
            return Delivery(Outcome.DELIVERED) if right else NONSENSE[problem](upload)

        def close(self) -> None:
            pass

    with (
        caplog.at_level(logging.WARNING),
        Tracker(config(backoff_cap=0.01), destination=Destination) as tracker,
    ):
        tracker.track("cart.abandoned")
        wait_until(lambda: bool(tracker.health().paused_because), "a cause in the health")
        health = tracker.health()
        assert problem in str(health.paused_because)
        assert problem in str(health.last_error)
        assert (health.ok, health.pending) == (False, 1)
        assert problem in caplog.text
        assert "Traceback" not in caplog.text
        right = True
        wait_until(lambda: tracker.health().delivered == 1, "delivery after the usual backoff")


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (Delivery(Outcome.INVALID), "invalid", "Outcome.INVALID without a cause"),
        (Delivery(Outcome.TOO_LARGE), "too_large", "Outcome.TOO_LARGE without a cause"),
        (Delivery(Outcome.INVALID, "why", "E7"), "E7", "why"),
        (None, "rejected", "gave no reason"),
    ],
    ids=["invalid", "too large", "with a code", "rejected"],
)
def test_a_dead_letter_says_why(
    answer: Delivery | None, code: str, message: str, config: MakeConfig
) -> None:
    """Even if the destination does not; a batch is halved until each event stands alone."""
    settings = config()
    destination = RecordingDestination(lambda sent: answer or rejecting(*sent.event_ids)(sent))
    with Tracker(settings, destination=lambda: destination) as tracker:
        for _ in range(3):
            tracker.track("cart.abandoned")
        assert tracker.flush(10).dead == 3
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        for said in connection.execute("SELECT dead_code, dead_message FROM events"):
            assert said[0] == code
            assert message in said[1]


@pytest.mark.parametrize("outcome", ["REFUSED", "TIMED_OUT", "UNAVAILABLE", "STALE", "UNEXPECTED"])
def test_other_outcomes_keep_the_events_and_say_why(outcome: str, config: MakeConfig) -> None:
    """Even if the destination gave no cause."""
    destination = RecordingDestination(delivered(outcome=Outcome[outcome], cause=" ", code=None))
    with Tracker(config(), destination=lambda: destination) as tracker:
        tracker.track("cart.abandoned")
        wait_until(lambda: not tracker.health().ok, "the health tells of it")
        assert tracker.health().pending == 1
        assert f"Outcome.{outcome} without a cause" in str(tracker.health().paused_because)


def one_argument(path: str) -> RecordingDestination:
    raise AssertionError(path)


@pytest.mark.parametrize("kind", [Tracker, LLMTracker, AsyncTracker, AsyncLLMTracker])
@pytest.mark.parametrize(
    "given",
    [RecordingDestination(), "http://localhost", 5, one_argument],
    ids=["destination", "text", "number", "one argument"],
)
@pytest.mark.parametrize("disabled", [False, True])
def test_what_cannot_make_a_destination_is_refused_at_once(
    kind: Any, given: object, disabled: bool, config: MakeConfig
) -> None:
    """The message says what is allowed, and no outbox is made."""
    settings = config(disabled=disabled)
    with pytest.raises(
        ConfigurationError, match=r"destination .*give a function without arguments"
    ):
        kind(settings, destination=given)
    assert not settings.outbox_path.exists()


class Maker:
    """Makes one destination, in several ways."""

    def __init__(self) -> None:
        self.received = RecordingDestination()

    def make(self, ignored: str = "") -> RecordingDestination:
        return self.received

    def wrapped(self) -> Callable[[], RecordingDestination]:
        """As a framework that fills in the arguments does."""

        @functools.wraps(one_argument)
        def call() -> RecordingDestination:
            return self.received

        return call


def test_whatever_can_be_called_makes_a_destination(config: MakeConfig) -> None:
    """A class, a bound method, a partial, or a function that a decorator has wrapped."""
    maker = Maker()
    ways: list[Any] = [
        maker.make,
        functools.partial(maker.make, "x"),
        maker.wrapped(),
        lambda: maker.received,
    ]
    for way in ways:
        with Tracker(config(), destination=way) as tracker:
            tracker.track("cart.abandoned")
            assert tracker.flush(10).pending == 0
    assert len(maker.received.events) == len(ways)
    with Tracker(config(), destination=RecordingDestination):
        pass


def test_trackers_on_one_outbox_share_a_destination(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The same function, or none, is in order."""
    maker = Maker()
    with (
        Tracker(config(), destination=maker.make) as one,
        Tracker(config(), destination=maker.make) as two,
        Tracker(config()) as three,
    ):
        for tracker in (one, two, three):
            tracker.track("cart.abandoned")
        assert one.flush(10).pending == 0
    assert len(maker.received.events) == 3
    assert "destination" not in caplog.text


def test_another_destination_for_the_same_outbox_is_not_used_silently(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning tells, for two functions may well make the same."""
    first, second = Maker(), Maker()
    with Tracker(config(), destination=first.make) as one:
        for _ in range(2):
            with Tracker(config(), destination=second.make) as two:
                two.track("cart.abandoned")
        assert one.flush(10).pending == 0
    assert (len(first.received.events), len(second.received.events)) == (2, 0)
    assert caplog.text.count("the destination given now is not used") == 1


def test_a_destination_in_place_of_the_collector_in_use_is_refused(config: MakeConfig) -> None:
    """The second tracker's events would go to a server that it does not name."""
    with (
        Tracker(config()),
        pytest.raises(ConfigurationError, match="to the collector; this one says destination"),
    ):
        Tracker(config(), destination=RecordingDestination)
