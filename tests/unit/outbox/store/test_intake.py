"""`Intake`: what becomes of events that cannot be stored at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from tracker.errors import OutboxDamagedError, OutboxError, OutboxFullError
from tracker.events import make_event
from tracker.outbox.store.ballast import Ballast
from tracker.outbox.store.intake import Intake
from tracker.outbox.store.trouble import StorageTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.events import Event

    MakeIntake = Callable[..., Intake]

DAMAGED = OutboxDamagedError("the outbox is damaged")
FULL = OutboxError("the disk is full")


class Store:
    """Stands for the connections to an outbox that fail as they are told to.

    It is the writer too, and the transaction of its jobs.
    """

    def __init__(self) -> None:
        self.stored: list[Event] = []
        self.attempts = 0
        self.fails_with: list[OutboxError] = []
        self.path = "outbox.sqlite3"
        self.generation = 0
        self.next_check_at = 1.0
        self.repairs = 0
        self.writer = self
        self.connection = None

    def append(self, event: Event) -> None:
        self.append_all([event])

    def append_all(self, events: Sequence[Event]) -> None:
        self.attempts += 1
        if self.fails_with:
            raise self.fails_with.pop(0)
        self.stored += events

    append_all_missing = append_all

    def run(self, job: Callable[[Any], object]) -> None:
        job(self)

    def repair(self, error: OutboxDamagedError, generation: int) -> bool:
        assert (error, generation) == (DAMAGED, self.generation)
        self.repairs += 1
        return True


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make_intake(store: Store, config: MakeConfig, tmp_path: Path) -> MakeIntake:
    def make(
        ballast_spent: bool = False,
        check_size: Callable[[int], None] | None = None,
        **changes: Any,
    ) -> Intake:
        connections = cast("Any", store)
        ballast = Ballast(tmp_path / "outbox.sqlite3")
        ballast.spent = ballast_spent
        trouble = StorageTrouble()
        return Intake(config(**changes), connections, store, ballast, trouble, check_size)

    return make


def note(number: int) -> Event:
    return make_event("test.noted", {"n": number})


def test_a_failing_disk_is_not_tried_at_each_call(
    make_intake: MakeIntake, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls stay fast while it fails, it is said once, and every event is kept in order."""
    intake, events = make_intake(), [note(number) for number in range(6)]
    store.fails_with = [FULL]
    with caplog.at_level(logging.ERROR, logger="tracker"):
        for event in events[:3]:
            intake.append(event)
        intake.append_all(events[3:])
    assert store.attempts == 1
    assert intake.buffer.held() == (events, {})
    assert ["the disk is full" in record.getMessage() for record in caplog.records] == [True]
    intake.drain()
    assert store.stored == events
    assert not intake.buffer.in_use


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_an_event_that_met_damage_is_stored_in_the_file_that_replaces_it(
    make_intake: MakeIntake, store: Store, call: str
) -> None:
    """And uploading is told of it, as of any other."""
    intake, event = make_intake(), note(1)
    told: list[int] = []
    intake.on_commit = lambda: told.append(1)
    store.fails_with = [DAMAGED]
    getattr(intake, call)(event if call == "append" else [event])
    assert store.stored == [event]
    assert (store.repairs, told) == (1, [1])
    assert not intake.buffer.in_use


def test_an_event_that_the_new_file_does_not_take_either_is_kept(
    make_intake: MakeIntake, store: Store
) -> None:
    """As the disk may be full besides: it waits in memory, and no call fails."""
    intake, event = make_intake(), note(1)
    store.fails_with = [DAMAGED, FULL]
    intake.append(event)
    assert (store.repairs, store.stored) == (1, [])
    assert intake.buffer.held() == ([event], {})


def test_an_event_that_the_new_file_does_not_take_either_is_refused_if_asked(
    make_intake: MakeIntake, store: Store
) -> None:
    """With `on_error="raise"` a call that returns has stored its event."""
    intake = make_intake(on_error="raise")
    store.fails_with = [DAMAGED, FULL]
    with pytest.raises(OutboxDamagedError):
        intake.append(note(1))
    assert not intake.buffer.in_use


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_what_waits_in_memory_is_written_before_what_comes_next(
    make_intake: MakeIntake, store: Store, call: str
) -> None:
    """So the order of calls is kept; and the thread that uploads is told."""
    intake, events = make_intake(), [note(number) for number in range(3)]
    intake.buffer.retry_seconds = 0.0
    told: list[int] = []
    intake.on_commit = lambda: told.append(len(store.stored))
    store.fails_with = [FULL]
    for event in events:
        getattr(intake, call)(event if call == "append" else [event])
    assert store.stored == events
    assert told == [2, 3]


def test_what_is_in_memory_at_the_end_survives_damage_too(
    make_intake: MakeIntake, store: Store
) -> None:
    """Closing is the last chance to store it: in the file that replaces the damaged one."""
    intake, event = make_intake(), note(1)
    store.fails_with = [FULL, DAMAGED]
    intake.append(event)
    assert intake.drain_before_close() is True
    assert (store.repairs, store.stored) == (1, [event])
    assert not intake.buffer.in_use


def test_a_failure_is_looked_into_at_once(make_intake: MakeIntake, store: Store) -> None:
    """The next check of the files does not wait for its usual time."""
    store.fails_with = [FULL]
    make_intake().append(note(1))
    assert store.next_check_at == 0.0


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_new_events_are_kept_out_of_the_room_that_uploading_needs(
    make_intake: MakeIntake, store: Store, call: str
) -> None:
    """On a full disk they stay in memory: a receipt could not be recorded otherwise."""
    intake, event = make_intake(ballast_spent=True), note(1)
    getattr(intake, call)(event if call == "append" else [event])
    with pytest.raises(OutboxError, match="waits for room"):
        intake.drain()
    assert store.attempts == 0
    assert intake.buffer.held() == ([event], {})


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_new_events_are_refused_over_the_size_limit(
    make_intake: MakeIntake, store: Store, call: str
) -> None:
    """It is asked for as many as are to be stored."""
    asked: list[int] = []

    def refuse(count: int) -> None:
        asked.append(count)
        raise OutboxFullError("the outbox is full")

    intake = make_intake(check_size=refuse, on_error="raise")
    with pytest.raises(OutboxFullError):
        getattr(intake, call)(note(1) if call == "append" else [note(1), note(2)])
    assert asked == [1 if call == "append" else 2]
    assert (store.attempts, intake.buffer.in_use) == (0, False)
