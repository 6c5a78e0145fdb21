"""`MadeDestination`: whatever the application's destination does is an outcome, with its cause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tracker import Delivery, Outcome, Rejection
from tracker.sync.destination import Upload
from tracker.sync.made import MadeDestination
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

UPLOAD = Upload(["id"], [b"{}"])


class Odd:
    """A destination whose `send` does what it is told to."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def send(self, upload: Upload) -> Any:
        return self._act()

    def close(self) -> None:
        self._act()


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


ERRORS = [
    ValueError("bad"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(),
    GeneratorExit(), OSError(24, "Too many open files"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_is_a_failure_that_names_it(error: BaseException) -> None:
    """Whichever it is: it must not end the thread that uploads."""
    made = MadeDestination(lambda: Odd(raising(error)))
    made.prepare()
    delivery = made.send(UPLOAD)
    assert delivery.outcome is Outcome.UNAVAILABLE
    assert type(error).__name__ in delivery.cause
    made.close()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_destination_that_cannot_be_made_is_a_failure_that_says_why(
    error: BaseException,
) -> None:
    """The next step tries again."""
    made = MadeDestination(raising(error))
    made.prepare()
    delivery = made.send(UPLOAD)
    assert delivery.outcome is Outcome.UNAVAILABLE
    assert type(error).__name__ in delivery.cause


def test_a_destination_that_cannot_be_closed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """With the traceback, for it is a bug of the application's."""
    made = MadeDestination(lambda: Odd(raising(ValueError("still busy"))))
    made.prepare()
    made.close()
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "the destination cannot be closed: ValueError: still busy" in record.getMessage()
    assert "Traceback" in record.getMessage()


@pytest.mark.parametrize("answer", [None, True, "stored", 200], ids=repr)
def test_an_answer_of_another_type_is_a_failure_that_says_what_to_return(answer: object) -> None:
    """As of a destination that forgets to return, or is a coroutine function."""
    made = MadeDestination(lambda: Odd(lambda: answer))
    made.prepare()
    assert "return a tracker.Delivery" in made.send(UPLOAD).cause


def test_what_an_answer_says_besides_is_checked_too() -> None:
    """A highest seq that is none settles nothing; a warning may be any text."""
    odd: Any = "7"
    made = MadeDestination(lambda: Odd(lambda: Delivery(Outcome.DELIVERED, highest_seq=odd)))
    made.prepare()
    assert "its highest_seq is a value of type str" in made.send(UPLOAD).cause


@pytest.mark.parametrize(
    "made",
    [None, RecordingDestination, object(), "http://localhost"],
    ids=lambda made: type(made).__name__,
)
def test_what_is_no_destination_is_a_failure_that_says_what_to_return(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line: there is no traceback that would help."""
    destination = MadeDestination(lambda: made)
    destination.prepare()
    delivery = destination.send(UPLOAD)
    assert delivery.outcome is Outcome.UNAVAILABLE
    assert "return an object with the methods send and close" in delivery.cause
    destination.close()
    assert "Traceback" not in caplog.text


def test_the_coroutine_of_a_coroutine_function_is_no_destination() -> None:
    """Though it has the methods send and close."""

    async def make() -> Odd:
        raise AssertionError

    coroutine = make()
    made = MadeDestination(lambda: coroutine)
    made.prepare()
    assert "the function returned a value of type coroutine" in made.send(UPLOAD).cause
    coroutine.close()


def test_texts_that_cannot_be_stored_are_made_so() -> None:
    """SQLite takes no lone surrogates."""
    rejection = Rejection("id", "co\ud800de", "mess\ud800age")
    made = MadeDestination(lambda: Odd(lambda: Delivery(Outcome.DELIVERED, rejected=[rejection])))
    made.prepare()
    (rejected,) = made.send(UPLOAD).rejected
    (rejected.code + rejected.message).encode()
    assert rejected.event_id == "id"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"count": 0}, "count"),
        ({"count": 2}, "count"),
        ({"count": True}, "count"),
        ({"skipped": ["other"]}, "skips 'other'"),
        ({"skipped": "id"}, "skipped"),
        ({"skipped": ["id"], "rejected": [Rejection("id", "c", "m")]}, "named twice"),
    ],
)
def test_an_answer_about_events_that_were_not_sent_is_void(
    answer: dict[str, Any], problem: str
) -> None:
    """Nothing of the batch is settled by it."""
    made = MadeDestination(lambda: Odd(lambda: Delivery(Outcome.DELIVERED, **answer)))
    made.prepare()
    delivery = made.send(UPLOAD)
    assert delivery.outcome is Outcome.UNEXPECTED
    assert problem in delivery.cause
