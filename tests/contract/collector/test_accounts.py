"""Reports of an account that batches keep say what a look at all events says."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from tests.support.collector import EventChain
from tracker.collector.batch import parse_batch
from tracker.collector.integrity import Gap, gaps
from tracker.collector.store import Store
from tracker.collector.tables import events, heads

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVED_MS = 1_790_000_000_000
DAY_MS = 86_400_000
MANY = 1_000


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    database: Any = tmp_path_factory.mktemp("collector") / "collector.sqlite3"
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres_server").new_database()
    found = Store(database)
    yield found
    found.close()


class Device:
    """A client with one outbox, whose batches go right into the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client_id = f"client-{uuid.uuid4()}"
        self.chain = EventChain()
        self.late: list[Any] = []

    def send(self, sent: list[Any]) -> None:
        """Send events in batches of a hundred."""
        for start in range(0, len(sent), 100):
            batch = self.chain.batch(sent[start : start + 100], self.client_id)
            parsed = parse_batch(json.dumps(batch).encode(), self.client_id)
            self.store.store_batch(parsed, RECEIVED_MS)

    def report(self, *, whole: bool = False) -> Any:
        """Return the report on the outbox."""
        return self.store.outbox_report(self.client_id, self.chain.outbox_id, whole=whole)

    def count(self) -> Any:
        """Return what of the outbox is here."""
        (found,) = self.store.outbox_counts(self.client_id)
        return found

    def change(self, seq: int) -> None:
        """Change an event in the database."""
        mine = (events.c.client_id == self.client_id, events.c.seq == seq)
        with self.store.writing(self.client_id) as connection:
            connection.execute(update(events).where(*mine).values(digest="d" * 64))

    def age(self) -> None:
        """Let a day go by since the events were read."""
        head = update(heads).where(heads.c.client_id == self.client_id)
        with self.store.writing(self.client_id) as connection:
            connection.execute(head.values(checked_at_ms=int(time.time() * 1000) - DAY_MS - 1))


@pytest.fixture
def device(store: Store) -> Device:
    """One that has sent some batches, with a gap, a refused event and one to come."""
    found = Device(store)
    sent = found.chain.events(MANY + 10)
    found.late = sent[499:500]
    sent[299] = {**sent[299], "type": ""}
    found.send(sent[:499] + sent[500:])
    assert found.report().chain == "intact"
    return found


def test_what_comes_is_in_the_next_report(device: Device) -> None:
    """With refused events and gaps of before."""
    device.send(device.chain.events(20))
    found = device.report()
    assert found == device.report(whole=True)
    assert (found.events, found.highest_seq) == (MANY + 28, MANY + 30)
    assert (found.chain, found.chain_breaks_at_seq) == ("intact", None)
    assert gaps(found) == [Gap(300, 300, "refused", "invalid_event"), Gap(500, 500, "lost")]


def test_a_late_event_closes_its_gap(device: Device) -> None:
    """And the events before and after it are linked."""
    device.send(device.late)
    found = device.report()
    assert (found.missing, found.events) == ([], MANY + 9)
    assert found == device.report(whole=True)


def test_a_change_to_an_earlier_event_shows_when_all_are_read(device: Device) -> None:
    """When that is asked for, and otherwise once a day; it shows from then on."""
    device.change(7)
    assert device.report().chain == "intact"
    device.age()
    before = device.report()
    assert (before.chain, before.chain_breaks_at_seq) == ("broken", 7)
    assert device.report() == before
    assert device.count().chain == "broken"
    device.change(5)
    assert device.report(whole=True).chain_breaks_at_seq == 5


def test_counts_are_those_of_the_report(device: Device) -> None:
    """After new events, and for an outbox that just began."""
    device.send(device.chain.events(20))
    counted, found = device.count(), device.report()
    assert (counted.events, counted.highest_seq) == (found.events, found.highest_seq)
    assert (counted.missing, counted.refused) == (found.missing_events, found.refused_events)
    assert (counted.chain, counted.checked_through_seq) == ("intact", MANY + 30)
    assert counted.last_received_ms == RECEIVED_MS
    new = Device(device.store)
    new.send(new.chain.events(3)[1:])
    assert (new.count().events, new.count().missing, new.count().chain) == (2, 1, "intact")
    everybody = {each.client_id: each for each in device.store.outbox_counts()}
    assert everybody[new.client_id] == new.count()
    assert everybody[device.client_id] == device.count()


def test_a_stamp_is_another_one_after_each_change(device: Device) -> None:
    """New events, duplicates of them, refusals and checks; not what another client sends."""
    store, sent = device.store, device.chain.events(2)
    seen = [store.stamp(device.client_id)]
    for change in (
        lambda: device.send(sent),
        lambda: device.send(sent),
        lambda: device.send([{**device.chain.event(), "type": ""}]),
        lambda: device.report(whole=True),
    ):
        assert store.stamp(device.client_id) == seen[-1]
        change()
        seen.append(store.stamp(device.client_id))
    assert len({*seen}) == len(seen)
    of_all = store.stamp(None)
    other = Device(store)
    other.send(other.chain.events(1))
    assert store.stamp(device.client_id) == seen[-1]
    assert store.stamp(None) != of_all
