"""What goes into a batch: as much as the bounds allow, and what was erased in its erased form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tracker.erasure import ERASED
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker.outbox.queue.batches import Batch


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    opened = Outbox(config())
    yield opened
    opened.close()


def fill(outbox: Outbox, count: int) -> None:
    for number in range(count):
        outbox.append(make_event("test.noted", {"n": number}))


def change(outbox: Outbox, statement: str) -> None:
    """Change a row behind the outbox's back."""
    outbox.run(lambda transaction: transaction.connection.exec_driver_sql(statement).rowcount)


def next_batch(outbox: Outbox, events: int = 500, size: int = 1 << 22) -> Batch:
    with outbox.reading() as connection:
        return batches.next_batch(connection, events, size)


def seqs(batch: Batch) -> list[int]:
    return [row.seq for row in batch.rows]


def test_a_batch_fills_its_bytes_to_the_last_one(outbox: Outbox) -> None:
    """Three events go out together where they and their commas fit exactly, and not in less."""
    fill(outbox, 3)
    size = sum(len(row.wire) + 1 for row in next_batch(outbox).rows)
    assert next_batch(outbox).size == size
    assert seqs(next_batch(outbox, size=size)) == [1, 2, 3]
    assert seqs(next_batch(outbox, size=size - 1)) == [1, 2]


@pytest.mark.parametrize(("most", "more"), [(3, True), (4, True), (5, False)])
def test_damaged_rows_do_not_hide_that_more_is_pending(
    outbox: Outbox, most: int, more: bool
) -> None:
    """The uploader goes on at once behind them, without the pause that it makes at the end."""
    fill(outbox, 4)
    change(outbox, "UPDATE events SET data = '{\"n\":7}' WHERE seq = 2")
    assert next_batch(outbox, events=most).more is more


def test_each_erasure_covers_what_it_names(outbox: Outbox) -> None:
    """However many erasures came after it: no erased event is taken for a damaged one."""
    for user in ("first", "second", "third"):
        outbox.append(make_event("test.noted", {"text": "mine"}, user_id=user))
    for user in ("first", "second", "third"):
        assert outbox.erase(user, {}).erased == 1
    batch = next_batch(outbox)
    assert (seqs(batch), list(batch.damaged)) == ([1, 2, 3, 4, 5, 6], [])
    sent = [json.loads(row.wire)["data"] for row in batch.rows[:3]]
    assert sent == [json.loads(ERASED)] * 3


def test_a_damaged_row_of_an_erased_event_stops_nothing(outbox: Outbox) -> None:
    """One from before there were salts has no digest to show it: its types do."""
    fill(outbox, 2)
    with outbox.reading() as connection:
        (named,) = connection.exec_driver_sql("SELECT event_id FROM events WHERE seq = 1").one()
    outbox.append(make_event("compliance.erased", {"event_ids": [named], "unsalted": [named]}))
    change(outbox, f"UPDATE events SET data = '{ERASED}', salt = NULL WHERE seq = 1")  # noqa: S608 - ours
    assert seqs(next_batch(outbox)) == [1, 2, 3]
    change(outbox, "UPDATE events SET agent_id = x'00ff' WHERE seq = 1")
    batch = next_batch(outbox)
    assert (seqs(batch), batch.damaged) == ([2, 3], [1])
