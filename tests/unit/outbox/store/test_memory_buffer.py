"""The memory buffer: bounded, in order, and honest about what it could not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.store.ledger import BY_BUFFER
from tracker.outbox.store.memory_buffer import MemoryBuffer

if TYPE_CHECKING:
    from tracker.events import Event

ERROR = OutboxError("the disk is full")
ROOM = 1 << 30


def is_in_use(buffer: MemoryBuffer) -> bool:
    return buffer.in_use  # by a function, lest mypy believes that it cannot change


def events(count: int) -> list[Event]:
    return [make_event("t", {"n": number}) for number in range(count)]


def counted(buffer: MemoryBuffer) -> tuple[int, int]:
    held, discarded = buffer.held()
    return len(held), discarded.get(BY_BUFFER, 0)


def test_events_are_held_in_order() -> None:
    """What went in first comes out first, and looking does not take."""
    buffer = MemoryBuffer(10, ROOM)
    some = events(5)
    for event in some:
        buffer.hold(event)
    assert buffer.held() == (some, {})
    assert buffer.held() == (some, {})
    assert len(buffer) == 5


@pytest.mark.parametrize("capacity", [0, 3])
def test_what_does_not_fit_is_counted(capacity: int) -> None:
    """The oldest are kept, and each of the others counts as lost."""
    buffer = MemoryBuffer(capacity, ROOM)
    some = events(10)
    for event in some:
        buffer.hold(event)
    assert buffer.held() == (some[:capacity], {BY_BUFFER: 10 - capacity})


def test_the_memory_buffer_is_bounded_in_bytes_too() -> None:
    """A few large events fill it as well as many small ones; what is written out makes room."""
    buffer = MemoryBuffer(1000, 100_000)
    large = [make_event("t", {"text": "x" * 30_000}) for _ in range(5)]
    for event in large:
        buffer.hold(event)
    assert buffer.held() == (large[:3], {BY_BUFFER: 2})
    buffer.written(large[:3], {BY_BUFFER: 2})
    buffer.hold(large[3])
    assert buffer.held() == ([large[3]], {})


def test_a_buffer_is_in_use_while_events_or_a_count_of_lost_ones_wait() -> None:
    """Even with no room at all: then a count of lost events waits to be written."""
    buffer = MemoryBuffer(0, ROOM)
    assert not is_in_use(buffer)
    buffer.hold(events(1)[0])
    assert is_in_use(buffer)
    buffer.written(*buffer.held())
    assert not is_in_use(buffer)
    assert buffer.held() == ([], {})


def test_the_disk_is_not_tried_again_at_once() -> None:
    """A failing disk costs one attempt a second, not one a call."""
    buffer = MemoryBuffer(10, ROOM)
    assert buffer.should_retry()
    buffer.note_failure(ERROR)
    assert not buffer.should_retry()


def test_each_trouble_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when it begins, one when events get lost, one when it is over."""
    monkeypatch.setattr(MemoryBuffer, "say_again_seconds", 0.0)
    buffer = MemoryBuffer(2, ROOM)
    for _ in range(2):
        for event in events(50):
            buffer.note_failure(ERROR)
            buffer.hold(event)
        buffer.written(*buffer.held())
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"] * 2
    begins, lost, over = [record.getMessage() for record in caplog.records[:3]]
    assert "the disk is full" in begins
    assert "further events are lost" in lost
    assert "2 events from memory are stored" in over


def test_trouble_that_comes_and_goes_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Within a minute it is told once that events wait, and once that they were written."""
    buffer = MemoryBuffer(2, ROOM)
    for _ in range(50):
        buffer.note_failure(ERROR)
        buffer.hold(events(1)[0])
        buffer.written(*buffer.held())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
