"""`resend`: delivered events become pending again, and every promise about the outbox holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker.events import make_event
from tracker.outbox.integrity import chain_key, verify
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement, sync_state
from tracker.outbox.queue.resend import resend
from tracker.outbox.queue.settlement import DeadLetter
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker.outbox.queue.batches import Batch
    from tracker.outbox.store.ledger import Account

KEY = "a chain key of sixteen bytes or more"


@pytest.fixture(params=[None, KEY], ids=["no chain key", "chain key"])
def outbox(config: MakeConfig, request: pytest.FixtureRequest) -> Iterator[Outbox]:
    """An outbox with ten events, five of each of two types."""
    opened = Outbox(config(on_error="raise", chain_key=request.param))
    for number in range(10):
        opened.append(make_event(f"{'otel' if number % 2 else 'cart'}.noted", {"n": number}))
    yield opened
    opened.close()


def next_batch(outbox: Outbox, most: int = 500) -> Batch:
    with outbox.reading() as connection:
        return batches.next_batch(connection, most, 10**7)


def book(outbox: Outbox) -> Account:
    with outbox.reading() as connection:
        return ledger.read(connection)


def pending(outbox: Outbox) -> list[int]:
    return [row.seq for row in next_batch(outbox).rows]


def assert_sound(outbox: Outbox) -> None:
    """Chain, gaps and account are right, and with a chain key they are proven."""
    with outbox.snapshot() as connection:
        keys = [KEY.encode()] if chain_key.read(connection).check else []
        report = verify.verify(connection, keys)
    assert report.proven, report


def test_what_was_delivered_is_sent_again_in_its_order(outbox: Outbox) -> None:
    """The account moves it from delivered to pending, and back once it is delivered again."""
    outbox.run(settlement.settle(next_batch(outbox)))
    late = make_event("cart.noted", {"n": 10})
    outbox.append(late)
    assert outbox.run(resend(0)) == 10
    assert book(outbox) == ledger.Account(11, pending=11)
    assert pending(outbox) == list(range(1, 12))
    assert_sound(outbox)
    outbox.run(settlement.settle(next_batch(outbox)))
    assert book(outbox) == ledger.Account(11, delivered=11)
    assert_sound(outbox)


def test_only_the_named_type_is_sent_again(outbox: Outbox) -> None:
    """By its name, or by a prefix."""
    outbox.run(settlement.settle(next_batch(outbox)))
    assert outbox.run(resend(0, "otel.*")) == 5
    assert pending(outbox) == [2, 4, 6, 8, 10]
    assert outbox.run(resend(0, "otel.*")) == 0, "they are pending already"
    assert outbox.run(resend(0, "cart.noted")) == 5
    assert_sound(outbox)


def test_only_what_was_delivered_since_then_is_sent_again(outbox: Outbox) -> None:
    """The time of delivery counts, not that of the event."""
    outbox.run(settlement.settle(next_batch(outbox, 4)))
    with outbox.reading() as connection:
        query = "SELECT max(delivered_at_ms) FROM events"
        delivered_ms = connection.exec_driver_sql(query).scalar_one()
    assert outbox.run(resend(delivered_ms + 1)) == 0
    assert outbox.run(resend(delivered_ms)) == 4


def test_dead_letters_stay_and_skipped_events_are_offered_again(outbox: Outbox) -> None:
    """A person decides about the first; a setting, or another destination, about the second."""
    batch = next_batch(outbox)
    letters = [DeadLetter(batch.rows[0].seq, "code", "message")]
    skipped = {batch.rows[1].event_id}
    outbox.run(settlement.settle(batch, letters, None, skipped))
    assert book(outbox) == ledger.Account(10, delivered=8, dead=1, skipped=1)
    assert outbox.run(resend(0)) == 9
    assert book(outbox) == ledger.Account(10, pending=9, dead=1)
    assert pending(outbox) == list(range(2, 11))
    assert_sound(outbox)
    outbox.run(settlement.settle(next_batch(outbox, 3), [], None, skipped))
    assert book(outbox) == ledger.Account(10, delivered=2, pending=6, dead=1, skipped=1)
    assert_sound(outbox)


def test_what_was_pruned_cannot_be_sent_again(outbox: Outbox) -> None:
    """The gap stays, and what comes after it is sent."""
    outbox.run(settlement.settle(next_batch(outbox, 6)))
    outbox.run(retention.prune(lambda _: True, 2**62))
    outbox.run(settlement.settle(next_batch(outbox)))
    assert outbox.run(resend(0)) == 4
    assert pending(outbox) == [7, 8, 9, 10]
    assert_sound(outbox)


def test_nothing_that_is_to_be_sent_again_is_pruned(outbox: Outbox) -> None:
    """However old it is: it is pending."""
    outbox.run(settlement.settle(next_batch(outbox)))
    outbox.run(resend(0))
    outbox.prune(0)
    assert pending(outbox) == list(range(1, 11))


def test_a_receipt_that_comes_afterwards_settles_only_what_it_is_for(outbox: Outbox) -> None:
    """A batch was under way: its events are delivered, and the earlier ones are pending again."""
    outbox.run(settlement.settle(next_batch(outbox, 5)))
    under_way = next_batch(outbox)
    assert outbox.run(resend(0)) == 5
    with outbox.reading() as connection:
        assert not batches.is_next(connection, under_way)
    outbox.run(settlement.settle(under_way))
    assert pending(outbox) == [1, 2, 3, 4, 5]
    with outbox.reading() as connection:
        assert sync_state.read_state(connection).settled_through == 0
    assert_sound(outbox)
