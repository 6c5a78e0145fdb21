"""`make_event`: the bounds of an event, and what is said about one beyond them."""

from __future__ import annotations

import time

import pytest

from tracker.canonical import envelope
from tracker.errors import ValidationError
from tracker.events import Event, make_event


def size(event: Event) -> int:
    return len(envelope(*event[:7]).encode())


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\0"])
def test_the_bound_is_on_encoded_bytes(letter: str) -> None:
    """Exactly max_bytes pass, one more does not, however many bytes a character takes."""
    event = make_event("t", {"content": letter * 500})
    bound = size(event)
    assert size(make_event("t", {"content": letter * 500}, max_bytes=bound)) == bound
    with pytest.raises(ValidationError):
        make_event("t", {"content": letter * 500}, max_bytes=bound - 1)


def test_a_too_large_event_is_refused_by_its_largest_argument() -> None:
    """The message gives the size, the bound, the setting, and a way out."""
    with pytest.raises(ValidationError) as caught:
        make_event("t", {"role": "user", "content": "x" * 5_242_880, "metadata": {"a": "y" * 99}})
    assert caught.value.argument == "content"
    message = str(caught.value)
    assert message.startswith("content: makes an event of 5,243,")
    assert "at most 1,048,576 are allowed (max_event_bytes)" in message
    assert "x" * 100 not in message


def test_what_cannot_be_encoded_is_a_validation_error() -> None:
    """Whatever a check let through must not escape as another kind of error."""
    with pytest.raises(ValidationError, match=r"^t: cannot be encoded as JSON: "):
        make_event("t", {"n": 10**5000})
    with pytest.raises(ValidationError, match=r"^t: cannot be encoded as JSON: "):
        make_event("t", {"n": object()})


def test_an_event_knows_when_it_was_made() -> None:
    """Wall clock, Unix milliseconds."""
    before = time.time_ns() // 1_000_000
    event = make_event("t", {})
    assert before <= event.timestamp_ms <= time.time_ns() // 1_000_000


def test_events_of_equal_arguments_differ_by_id() -> None:
    """Each call is an event of its own."""
    first, second = make_event("t", {}), make_event("t", {})
    assert first.event_id < second.event_id
    assert first.digest != second.digest
