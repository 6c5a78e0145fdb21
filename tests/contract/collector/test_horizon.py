"""Reading in the order of ids on PostgreSQL, while events are being stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.contract.collector.test_at_the_same_time import CLIENT, NOW_MS, Replicas, batch_of
from tests.support.collector import EventChain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgresql import PostgresServer
    from tracker.collector.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def replicas(postgres_server: PostgresServer) -> Iterator[Replicas]:
    with ThreadPoolExecutor(8) as pool:
        found = Replicas(postgres_server.new_database(), pool)
        yield found
        found.close()


def read_on(store: Store, after: int) -> list[tuple[str, int]]:
    """Return outbox, seq of all events after an id, as a reader gets them page by page."""
    found, following = [], after
    while True:
        rows, more = store.events_after(CLIENT, following, 100, 10**6)
        found += [(row["outbox_id"], row["seq"]) for row in rows]
        if more is None:
            return found
        following = more


def test_an_event_that_is_still_being_stored_is_not_passed_over(replicas: Replicas) -> None:
    """What was stored after it, and committed before, is not read until it is there."""
    slow, fast = EventChain(), EventChain()
    sent = slow.events(3)
    with replicas.holding(sent[1]):
        waiting = replicas.send(replicas.one, batch_of(slow, sent))
        replicas.await_waiting(1)
        replicas.one.store_batch(batch_of(fast, fast.events(2)), NOW_MS)
        assert read_on(replicas.two, 0) == []
        assert not replicas.two.horizon.look()
    waiting.result(10)
    found = read_on(replicas.two, 0)
    assert sorted(found) == sorted(
        [(slow.outbox_id, seq) for seq in (1, 2, 3)] + [(fast.outbox_id, seq) for seq in (1, 2)]
    )
    assert found[0] == (slow.outbox_id, 1)


def test_a_transaction_that_stores_no_events_stops_no_reader(replicas: Replicas) -> None:
    """However long it takes, and whatever else it writes in this database."""
    chain = EventChain()
    with replicas.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE other (id bigint)")
        connection.commit()
        connection.exec_driver_sql("INSERT INTO other VALUES (1)")
        connection.exec_driver_sql("UPDATE heads SET version = version")
        replicas.one.store_batch(batch_of(chain, chain.events(3)), NOW_MS)
        assert len(read_on(replicas.two, 0)) == 3
        connection.rollback()


def test_a_reader_gets_each_event_once_while_outboxes_are_stored(replicas: Replicas) -> None:
    """Pages follow one another with no id between them left out."""
    chains = [EventChain() for _ in range(6)]

    def write(chain: EventChain, store: Store) -> None:
        for _ in range(30):
            store.store_batch(batch_of(chain, chain.events(5)), NOW_MS)

    writing = [
        replicas.begin(write, chain, (replicas.one, replicas.two)[number % 2])
        for number, chain in enumerate(chains)
    ]
    found: list[tuple[str, int]] = []
    after, done = 0, False
    while True:
        rows, _ = replicas.two.events_after(CLIENT, after, 50, 10**6)
        found += [(row["outbox_id"], row["seq"]) for row in rows]
        if rows:
            after = rows[-1]["id"]
        elif done:
            break
        done = all(job.done() for job in writing)
    for job in writing:
        job.result()
    assert len(found) == len({*found}) == 900
    for chain in chains:
        assert [seq for outbox, seq in found if outbox == chain.outbox_id] == [*range(1, 151)]
