"""`Uploader`: what it reads in advance goes out only if it still is what comes next."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import fill
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement, sync_state
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.outbox.store import ledger
from tracker.outbox.store.memory_buffer import MemoryBuffer
from tracker.sync.destination import Delivery, Outcome, Rejection
from tracker.sync.uploader import Uploader
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig
    from tracker.sync.destination import Upload


@pytest.fixture
def settings(config: MakeConfig) -> APIConfig:
    return config(batch_max_events=2)


@pytest.fixture
def outbox(settings: APIConfig) -> Iterator[Outbox]:
    fill(settings, 6)
    opened = Outbox(settings)
    yield opened
    opened.close()


def upload(
    outbox: Outbox, settings: APIConfig, meanwhile: Callable[[int], Delivery | None]
) -> list[dict[str, Any]]:
    """Upload everything to a server that, while it works, is asked for the next batch.

    After that `meanwhile` is called with the number of the request; it may answer. Returns every
    event in the order in which it was delivered.
    """
    requests = 0

    def answer(upload: Upload) -> Delivery:
        nonlocal requests
        requests += 1
        if upload.following is not None:
            upload.following()
        return meanwhile(requests) or Delivery(Outcome.DELIVERED)

    destination = RecordingDestination(answer)
    uploader = Uploader(outbox, settings, destination)
    while not uploader.step().idle:
        pass
    return destination.events


def drain(
    outbox: Outbox, settings: APIConfig, meanwhile: Callable[[int], Delivery | None]
) -> list[int]:
    """Return the seqs of what `upload` returns."""
    return [event["seq"] for event in upload(outbox, settings, meanwhile)]


def test_everything_goes_out_once_and_in_order(outbox: Outbox, settings: APIConfig) -> None:
    """Reading in advance changes nothing of what arrives."""
    assert drain(outbox, settings, lambda _: None) == [1, 2, 3, 4, 5, 6]


def test_a_failed_batch_comes_again_before_what_was_read_in_advance(
    outbox: Outbox, settings: APIConfig
) -> None:
    """Order holds over failures."""
    failures = {1: Outcome.UNAVAILABLE, 3: Outcome.TIMED_OUT}

    def failing(request: int) -> Delivery | None:
        return Delivery(failures[request]) if request in failures else None

    assert drain(outbox, settings, failing) == [1, 2, 3, 4, 5, 6]


def test_an_event_that_was_buried_meanwhile_does_not_go_out(
    outbox: Outbox, settings: APIConfig
) -> None:
    """What another process decided about an event holds, though it was read before."""

    def bury(request: int) -> None:
        if request == 1:
            letter = settlement.DeadLetter(4, "operator", "not this one")
            outbox.run(lambda transaction: settlement.mark_dead(transaction.connection, [letter]))

    assert drain(outbox, settings, bury) == [1, 2, 3, 5, 6]


def test_an_event_made_pending_again_meanwhile_goes_out_first(
    outbox: Outbox, settings: APIConfig
) -> None:
    """An operator's retry of an earlier dead letter is not overtaken."""
    with outbox.reading() as connection:
        first = batches.next_batch(connection, 1, 10_000).rows[0].event_id

    def reject_then_retry(request: int) -> Delivery | None:
        if request == 1:
            return Delivery(Outcome.DELIVERED, rejected=[Rejection(first, "no", "no")])
        if request == 2:
            assert outbox.run(dead_letters.retry([first])) == 1
        return None

    # The fake keeps a rejected event too: it arrives in the first batch, and once more.
    assert drain(outbox, settings, reject_then_retry) == [1, 2, 3, 4, 1, 5, 6]


def test_what_was_erased_meanwhile_goes_out_erased(outbox: Outbox, settings: APIConfig) -> None:
    """Though it was read, and perhaps compressed, before it was erased."""
    outbox.append(make_event("message.logged", {"content": "mine"}, user_id="user_7"))

    def erase(request: int) -> None:
        if request == 3:  # events 7 and on are read already
            assert outbox.erase("user_7", {}).erased == 1

    assert {event["seq"]: event["data"] for event in upload(outbox, settings, erase)}[7] == {
        "erased": True
    }


def test_a_receipt_is_recorded_while_the_next_one_is_awaited(
    outbox: Outbox, settings: APIConfig
) -> None:
    """Neither waits for the other, and nothing is left to record at the end."""
    before: list[int] = []
    after: list[int] = []

    def look(request: int) -> None:
        with outbox.reading() as connection:
            after.append(ledger.read(connection).delivered)

    def answer(upload: Upload) -> Delivery:
        with outbox.reading() as connection:
            before.append(ledger.read(connection).delivered)
        if upload.following is not None:
            upload.following()
        look(len(before))
        return Delivery(Outcome.DELIVERED)

    uploader = Uploader(outbox, settings, RecordingDestination(answer))
    while not uploader.step().idle:
        pass
    assert (before, after) == ([0, 0, 2], [0, 2, 4])
    with outbox.reading() as connection:
        assert ledger.read(connection).delivered == 6


def test_the_last_batch_holds_no_receipt_up(outbox: Outbox, settings: APIConfig) -> None:
    """A server that takes long over it does not keep what arrived before from being known."""
    fill(settings, 1)
    seen: list[int] = []

    def look(_request: int) -> None:
        with outbox.reading() as connection:
            seen.append(ledger.read(connection).delivered)

    upload(outbox, settings, look)
    assert seen == [0, 2, 4, 6]


@pytest.mark.parametrize("end", ["failure", "close"])
def test_a_receipt_is_recorded_though_no_other_batch_follows(
    outbox: Outbox, settings: APIConfig, end: str
) -> None:
    """What was received is not sent again because the next request failed or was never made."""

    def answer(upload: Upload) -> Delivery:
        if end == "failure" and destination.events:
            return Delivery(Outcome.UNAVAILABLE)
        assert upload.following is not None
        upload.following()
        return Delivery(Outcome.DELIVERED)

    destination = RecordingDestination(answer)
    uploader = Uploader(outbox, settings, destination)
    uploader.step()
    if end == "failure":
        uploader.step()
    else:
        uploader.close()
    with outbox.reading() as connection:
        assert ledger.read(connection).delivered == 2


def test_a_retried_letter_is_not_taken_for_sent_when_another_event_is_discarded(
    outbox: Outbox, settings: APIConfig
) -> None:
    """A receipt counts for the events that were sent, not for as many as were sent."""
    letter = settlement.DeadLetter(2, "operator", "not this one")
    outbox.run(lambda transaction: settlement.mark_dead(transaction.connection, [letter]))
    with outbox.reading() as connection:
        under_way = batches.next_batch(connection, 2, 10_000)
    ids = event_ids(outbox)
    outbox.run(dead_letters.retry([ids[1]]))
    last = settlement.DeadLetter(3, "operator", "nor this one")
    outbox.run(lambda transaction: settlement.mark_dead(transaction.connection, [last]))
    assert [row.seq for row in under_way.rows] == [1, 3]
    outbox.run(settlement.settle(under_way))
    with outbox.reading() as connection:
        assert [row.seq for row in batches.next_batch(connection, 9, 10_000).rows] == [2, 4, 5, 6]


def test_a_link_that_is_too_slow_for_a_batch_gets_smaller_ones(
    outbox: Outbox, settings: APIConfig
) -> None:
    """Otherwise it would never carry anything, however often the whole batch is tried."""

    def slow(upload: Upload) -> Delivery:
        return Delivery(Outcome.TIMED_OUT if len(upload.events) > 1 else Outcome.DELIVERED)

    destination = RecordingDestination(slow)
    uploader = Uploader(outbox, settings, destination)
    steps = 0
    while len(destination.events) < 6:
        uploader.step()
        steps += 1
        assert steps < 100, destination.sizes
    assert [event["seq"] for event in destination.events] == [1, 2, 3, 4, 5, 6]
    assert uploader.failures == destination.sizes.count(2)


def test_nothing_is_sent_while_the_outbox_cannot_be_written(
    settings: APIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipt could not be recorded, and what waits in memory should not be overtaken."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    monkeypatch.setattr(MemoryBuffer, "retry_seconds", 0.0)
    outbox, destination = Outbox(settings), RecordingDestination()
    outbox.append(make_event("test.noted", {"n": 1}))
    uploader = Uploader(outbox, settings, destination)
    with closing(sqlite3.connect(outbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outbox.append(make_event("test.noted", {"n": 2}))
        assert outbox.buffered == 1
        with pytest.raises(OutboxError):
            uploader.step()
        assert destination.sizes == []
        other.execute("ROLLBACK")
    uploader.step()
    assert [event["data"]["n"] for event in destination.events] == [1, 2]
    uploader.close()
    outbox.close()


def test_a_failure_that_cannot_be_recorded_is_waited_for_all_the_same(
    outbox: Outbox,
    settings: APIConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server and a disk that fail at once lead to a pause, and the log says both."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    outbox.close_connections()

    def answer(_: Upload) -> Delivery:
        other.execute("BEGIN IMMEDIATE")
        return Delivery(Outcome.UNAVAILABLE, "it is unplugged")

    uploader = Uploader(outbox, settings, RecordingDestination(answer))
    with (
        closing(sqlite3.connect(outbox.path, isolation_level=None)) as other,
        caplog.at_level(logging.INFO, logger="tracker"),
    ):
        pause = uploader.step()
        other.execute("ROLLBACK")
    assert not pause.idle
    assert uploader.failures == 1
    said = [record.getMessage() for record in caplog.records]
    assert ["it is unplugged" in line for line in said] == [True, False]
    assert "the state of uploading cannot be stored" in said[1]
    assert "locked" in said[1]


def test_pending_events_are_found_wherever_they_are(outbox: Outbox, settings: APIConfig) -> None:
    """Though the place where they should begin is wrong, as after damage."""
    outbox.run(sync_state.write_state(settled_through=100))
    assert drain(outbox, settings, lambda _: None) == []
    assert drain(outbox, settings, lambda _: None) == [1, 2, 3, 4, 5, 6]


def test_a_rejection_is_said(
    outbox: Outbox, settings: APIConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """With the server's words and what to look at."""
    first = event_ids(outbox)[0]

    def reject(request: int) -> Delivery | None:
        rejected = [Rejection(first, "odd_event", "it is odd")]
        return Delivery(Outcome.DELIVERED, rejected=rejected) if request == 1 else None

    drain(outbox, settings, reject)
    [said] = [record.getMessage() for record in caplog.records]
    assert "permanently rejected 1 event (odd_event: it is odd), kept as dead" in said
    assert "tracker-sync dead list" in said


def test_old_events_are_removed_once_an_hour(
    outbox: Outbox, settings: APIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First after a minute, so that short jobs need not wait for it."""
    pruned: list[float] = []
    now = 0.0
    monkeypatch.setattr(outbox, "prune", lambda: pruned.append(now))
    uploader = Uploader(outbox, settings, RecordingDestination(), clock=lambda: now)
    for now in (59.0, 60.0, 61.0, 3659.0, 3660.0, 3661.0):  # noqa: B007 - the clock reads it
        uploader.step()
    assert pruned == [60.0, 3660.0]


def event_ids(outbox: Outbox) -> list[str]:
    """Return the ids of all events in order."""
    with outbox.reading() as connection:
        return list(
            connection.exec_driver_sql("SELECT event_id FROM events ORDER BY seq").scalars()
        )


def test_an_event_that_comes_while_nothing_is_found_is_not_astray(
    outbox: Outbox,
    settings: APIConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or each such moment would be an error in the log, and a scan under the write lock."""
    uploader = Uploader(outbox, settings, RecordingDestination())
    while not uploader.step().idle:
        pass
    find = batches.next_batch

    def find_and_log(*arguments: Any) -> batches.Batch:
        found = find(*arguments)
        outbox.append(make_event("thing.happened", {}))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(batches, "next_batch", find_and_log)
        assert uploader.step().idle
    assert "counts pending events" not in caplog.text
    while not uploader.step().idle:
        pass
    with outbox.reading() as connection:
        assert ledger.read(connection).pending == 0
