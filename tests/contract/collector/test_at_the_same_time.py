"""What arrives at two replicas at the same moment, on a real PostgreSQL.

A transaction of the test's own holds one event back, so that a batch which has the same event stops
half-way, with its locks taken and its other events stored but not committed.
"""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import insert

from tests.support.collector import EventChain
from tests.support.device_tree import DeviceTree, new_key
from tests.support.received import span_of, traces_request
from tracker.collector import derived
from tracker.collector.batch import parse_batch
from tracker.collector.database import StorageError
from tracker.collector.forgetting import erase_subject
from tracker.collector.otlp.body import items
from tracker.collector.otlp.events import Gathering
from tracker.collector.otlp.forms import PROTOBUF
from tracker.collector.otlp.signals import TRACES
from tracker.collector.store import Store, Stored
from tracker.collector.tables import events
from tracker.collector.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgresql import PostgresServer
    from tracker.collector.batch import Batch

pytestmark = pytest.mark.slow

CLIENT = "kiosk-17"
NOW_MS = 1_790_000_000_000


class Replicas:
    """Two collectors' stores on one database, whose batches run in threads.

    Attributes:
        one: A store.
        two: Another one.
    """

    def __init__(self, url: str, pool: ThreadPoolExecutor) -> None:
        self.engine = sqlalchemy.create_engine(url)
        witness = Witness("w", new_key())
        self.one, self.two = Store(url, witness=witness), Store(url, witness=witness)
        self._pool = pool

    def close(self) -> None:
        self.one.close()
        self.two.close()
        self.engine.dispose()

    def send(self, store: Store, batch: Batch) -> Future[Stored]:
        """Begin to store a batch."""
        return self._pool.submit(store.store_batch, batch, NOW_MS)

    def begin(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin something else."""
        return self._pool.submit(job, *arguments)

    @contextlib.contextmanager
    def holding(self, event: dict[str, Any], client_id: str = CLIENT) -> Iterator[None]:
        """Keep whoever stores this event waiting within the block; it is not stored by that."""
        row = {
            **{name: event[name] for name in ("event_id", "type", "timestamp_ms", "digest")},
            "client_id": client_id, "outbox_id": "", "seq": 0, "data": "", "chain": "",
            "received_at_ms": 0, "sent_at_ms": 0,
        }  # fmt: skip
        with self.engine.connect() as connection:
            connection.execute(insert(events).values(row))
            yield
            connection.rollback()

    def await_waiting(self, count: int) -> None:
        """Return when so many transactions wait for a lock."""
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        deadline = time.monotonic() + 30
        with self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            while connection.exec_driver_sql(query).scalar() != count:
                assert time.monotonic() < deadline, "nobody waits"
                time.sleep(0.005)

    def stored(self) -> list[Any]:
        """Return what is stored, in the order of ids."""
        with self.one.reading() as connection:
            return list(connection.execute(sqlalchemy.select(events).order_by(events.c.id)))


@pytest.fixture
def replicas(postgres_server: PostgresServer) -> Iterator[Replicas]:
    with ThreadPoolExecutor(4) as pool:
        found = Replicas(postgres_server.new_database(), pool)
        yield found
        found.close()


def batch_of(chain: EventChain, sent: list[dict[str, Any]], client_id: str = CLIENT) -> Batch:
    return parse_batch(json.dumps(chain.batch(sent, client_id)).encode(), client_id)


def spans_of(*numbers: int) -> Batch:
    gathering = Gathering(CLIENT, TRACES, NOW_MS)
    gathering.add(items(traces_request(*map(span_of, numbers)), PROTOBUF, TRACES))
    return gathering.batch()


def erasing(chain: EventChain, *named: dict[str, Any]) -> dict[str, Any]:
    ids = [each["event_id"] for each in named]
    return chain.event({"event_ids": ids}, type="compliance.erased", session_id=None)


def test_batches_of_two_outboxes_of_a_client_do_not_wait_for_each_other(
    replicas: Replicas,
) -> None:
    """One that is stuck holds up its own outbox alone."""
    stuck, free = EventChain(), EventChain()
    sent = stuck.events(3)
    with replicas.holding(sent[1]):
        waiting = replicas.send(replicas.one, batch_of(stuck, sent))
        replicas.await_waiting(1)
        assert replicas.send(replicas.two, batch_of(free, free.events(3))).result(10).accepted == 3
        behind = replicas.send(replicas.two, batch_of(stuck, stuck.events(1)))
        replicas.await_waiting(2)
        assert not behind.done()
    assert (waiting.result(10).accepted, behind.result(10).accepted) == (3, 1)
    assert behind.result().highest_seq == 4


def test_an_erasure_waits_for_the_event_that_it_names(replicas: Replicas) -> None:
    """By a batch of another outbox, and by the command: it is not noted as one to come."""
    chain, other = EventChain(), EventChain()
    sent = [chain.event({"content": "secret"}, user_id="u"), *chain.events(1)]
    with replicas.holding(sent[1]):
        arriving = replicas.send(replicas.one, batch_of(chain, sent))
        replicas.await_waiting(1)
        erased = replicas.send(replicas.two, batch_of(other, [erasing(other, sent[0])]))
        command = replicas.begin(erase_subject, replicas.two, CLIENT, "nobody")
        replicas.await_waiting(3)
    assert (arriving.result(10).accepted, erased.result(10).accepted) == (2, 1)
    command.result(10)
    assert "secret" not in str(replicas.stored())


def test_an_event_waits_for_the_erasure_that_names_it(replicas: Replicas) -> None:
    """It is stored as erased."""
    chain, other = EventChain(), EventChain()
    sent = [chain.event({"content": "secret"}, user_id="u")]
    erasure = [erasing(other, sent[0]), *other.events(1)]
    with replicas.holding(erasure[1]):
        erased = replicas.send(replicas.one, batch_of(other, erasure))
        replicas.await_waiting(1)
        arriving = replicas.send(replicas.two, batch_of(chain, sent))
        replicas.await_waiting(2)
    assert (arriving.result(10).accepted, erased.result(10).accepted) == (1, 2)
    assert "secret" not in str(replicas.stored())


@pytest.mark.parametrize("count", [3, 50])
def test_an_event_that_comes_under_two_outbox_ids_is_stored_once(
    replicas: Replicas, count: int
) -> None:
    """As after a salvage, when the former outbox is still sending; in few events and in many."""
    former, salvaged = EventChain(), EventChain()
    sent = former.events(count)
    again = [{**each, "seq": each["seq"] + 100} for each in sent[:-1]] + salvaged.events(1)
    with replicas.holding(sent[-1]):
        first = replicas.send(replicas.one, batch_of(former, sent))
        replicas.await_waiting(1)
        second = replicas.send(replicas.two, batch_of(salvaged, again))
        replicas.await_waiting(2)
    assert first.result(10)[:3] == (count, 0, count)
    assert second.result(10)[:2] == (1, count - 1)
    assert [row.outbox_id for row in replicas.stored()].count(former.outbox_id) == count
    found = replicas.two.outbox_report(CLIENT, salvaged.outbox_id)
    assert (found.events, found.highest_seq) == (1, 1)


def test_two_that_store_the_same_events_the_other_way_round_are_stored_once(
    replicas: Replicas,
) -> None:
    """PostgreSQL ends one of the two, whose sender gets no receipt and sends it again."""
    one, two = EventChain(), EventChain()
    x, z, y = one.events(3)
    batches = [batch_of(one, [x, z, y]), batch_of(two, [y, x])]
    with replicas.holding(z):
        sent = [replicas.send(replicas.one, batches[0])]
        replicas.await_waiting(1)
        sent.append(replicas.send(replicas.two, batches[1]))
        replicas.await_waiting(2)
    failed = [batch for batch, job in zip(batches, sent, strict=True) if job.exception(20)]
    assert len(failed) == 1
    assert isinstance(next(job.exception() for job in sent if job.exception()), StorageError)
    replicas.one.store_batch(failed[0], NOW_MS)
    ids = [row.event_id for row in replicas.stored()]
    assert sorted(ids) == sorted(each["event_id"] for each in (x, y, z))


def test_two_copies_of_an_outbox_are_noticed(replicas: Replicas) -> None:
    """Whichever comes first, the other's receipt warns."""
    chain = EventChain()
    mine = chain.events(2)
    copied = [{**each, "seq": number} for number, each in enumerate(EventChain().events(2), 1)]
    with replicas.holding(mine[1]):
        first = replicas.send(replicas.one, batch_of(chain, mine))
        replicas.await_waiting(1)
        second = replicas.send(replicas.two, batch_of(chain, copied))
        replicas.await_waiting(2)
    assert (first.result(10).forked, second.result(10).forked) == (False, True)
    assert replicas.one.outbox_report(CLIENT, chain.outbox_id).reused_seqs == [1, 2]


def test_two_heads_that_contradict_are_not_both_cosigned(replicas: Replicas) -> None:
    """Sent by copies of one outbox, as two clients, to two replicas at once."""
    device = DeviceTree(new_key())
    device.events(1)
    copy = device.copy()
    batches = []
    for each, client_id in ((device, CLIENT), (copy, "another")):
        own = each.events(2)
        batches.append((batch_of(each, [each.head(), *own], client_id), own))
    with replicas.holding(batches[0][1][1]):
        first = replicas.send(replicas.one, batches[0][0])
        replicas.await_waiting(1)
        second = replicas.send(replicas.two, batches[1][0])
        replicas.await_waiting(2)
    assert first.result(10).cosigned is not None
    assert (second.result(10).cosigned, second.result(10).forked) == (None, True)


def test_a_key_is_not_replaced_while_a_batch_of_its_outbox_is_judged(replicas: Replicas) -> None:
    """It waits for the batch, and then counts."""
    device = DeviceTree(new_key())
    replicas.one.store_batch(batch_of(device, device.events(1)), NOW_MS)
    sent = [device.head(), *device.events(1)]
    with replicas.holding(sent[1]):
        first = replicas.send(replicas.one, batch_of(device, sent))
        replicas.await_waiting(1)
        new = new_key().public_key.hex()
        bound = replicas.begin(replicas.two.replace_outbox_key, CLIENT, device.outbox_id, new)
        replicas.await_waiting(2)
    assert first.result(10).cosigned is not None
    bound.result(10)
    reasons = [key.reason for key in replicas.one.outbox_keys(CLIENT, device.outbox_id)]
    assert reasons == ["first", "operator"]


def test_what_comes_without_an_outbox_is_numbered_without_a_gap(replicas: Replicas) -> None:
    """Spans that two replicas get at once, some of them the same."""
    held = spans_of(2).events[0]
    with replicas.holding(held._asdict()):
        first = replicas.send(replicas.one, spans_of(1, 2, 3))
        replicas.await_waiting(1)
        second = replicas.send(replicas.two, spans_of(3, 4, 1))
        replicas.await_waiting(2)
    assert (first.result(10).accepted, second.result(10).accepted) == (3, 1)
    found = replicas.one.outbox_report(CLIENT, derived.outbox_id_of(CLIENT))
    assert (found.events, found.missing, found.chain_breaks_at_seq) == (4, [], None)


@pytest.mark.parametrize("count", [3, 50])
def test_what_an_event_says_is_in_no_error(replicas: Replicas, count: int) -> None:
    """PostgreSQL itself quotes the row that it cannot store."""
    chain = EventChain()
    batch = batch_of(chain, [chain.event({"content": "secret"}) for _ in range(count)])
    events_ = tuple(event._replace(type="x" * 300) for event in batch.events)
    with pytest.raises(StorageError, match="too long") as caught:
        replicas.one.store_batch(replace(batch, events=events_), NOW_MS)
    assert "secret" not in str(caught.value)
    assert replicas.one.store_batch(batch, NOW_MS).accepted == count
