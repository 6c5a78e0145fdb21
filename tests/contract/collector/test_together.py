"""Small batches that arrive at the same time are stored in one transaction of PostgreSQL."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
import sqlalchemy
from sqlalchemy import insert

from tests.support.collector import CollectorProcess, EventChain
from tests.support.device_tree import DeviceTree, new_key
from tests.support.event_loop import run
from tracker.collector.batch import Batch, parse_batch
from tracker.collector.database import StorageError
from tracker.collector.gate import Gate
from tracker.collector.meter import Meter
from tracker.collector.refusal import RefusedError
from tracker.collector.store import Store, Stored
from tracker.collector.tables import events, heads
from tracker.collector.together import SMALL_BYTES, Together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.slow

NOW_MS = 1_790_000_000_000
NOBODY = ""


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    found = Store(postgres_server.new_database())
    yield found
    found.close()


class Device(EventChain):
    """An outbox of which the first event is stored."""

    def __init__(self, store: Store, client_id: str) -> None:
        super().__init__()
        self.client_id = client_id
        store.store_batch(self.of(self.events(1)), NOW_MS)

    def body(self, sent: list[dict[str, Any]]) -> bytes:
        return json.dumps(self.batch(sent, self.client_id)).encode()

    def of(self, sent: list[dict[str, Any]]) -> Batch:
        return parse_batch(self.body(sent), self.client_id)

    def next(self, count: int = 2) -> Batch:
        return self.of(self.events(count))


@pytest.fixture
def devices(store: Store) -> list[Device]:
    """Two of one client, and one of another."""
    return [Device(store, client_id) for client_id in ("a", "a", "b")]


def transactions(store: Store) -> list[tuple[str, int, str]]:
    """Return outbox, number and transaction of each event."""
    query = "SELECT outbox_id, seq, xmin::text FROM events"
    with store.reading() as connection:
        return [(row[0], row[1], row[2]) for row in connection.exec_driver_sql(query)]


def seqs(store: Store, device: Device) -> list[int]:
    return sorted(seq for outbox_id, seq, _ in transactions(store) if outbox_id == device.outbox_id)


def assert_accounts_hold(store: Store, devices: list[Device]) -> None:
    for device in devices:
        found = store.outbox_report(device.client_id, device.outbox_id)
        assert found == store.outbox_report(device.client_id, device.outbox_id, whole=True)
        assert found.highest_seq == max(seqs(store, device))


# --- the store ---


@pytest.mark.parametrize("count", [2, 30])
def test_one_transaction_stores_what_goes_on(
    store: Store, devices: list[Device], count: int
) -> None:
    """By one statement for few events, and by COPY; a gap is in the account of its outbox."""
    devices[2].events(3)  # which are lost
    stored = store.store_together([each.next(count) for each in devices], NOW_MS)
    assert stored == [
        Stored(count, 0, 1 + count, False, None),
        Stored(count, 0, 1 + count, False, None),
        Stored(count, 0, 4 + count, False, None),
    ]
    assert len({xmin for _, seq, xmin in transactions(store) if seq > 1}) == 1
    assert store.outbox_report("b", devices[2].outbox_id).missing == [(2, 4)]
    assert_accounts_hold(store, devices)


def test_a_batch_of_what_is_here_is_not_stored_together(
    store: Store, devices: list[Device]
) -> None:
    """Its receipt needs a write of its own, and a look at what is here."""
    sent = [each.next() for each in devices]
    store.store_batch(sent[0], NOW_MS)
    stored = store.store_together(sent, NOW_MS)
    assert [each is None for each in stored] == [True, False, False]
    assert store.store_batch(sent[0], NOW_MS).duplicates == 2
    assert_accounts_hold(store, devices)


def odd_batches(device: Device, others: dict[str, Any]) -> dict[str, Batch]:
    """Return batches that ask for more than to be stored."""
    erasure = device.event({"event_ids": [others["event_id"]]}, type="compliance.erased")
    refused = {**device.event(), "digest": "0" * 64}
    first = EventChain()
    return {
        "an erasure": device.of([erasure]),
        "a refused event": device.of([*device.events(1), refused]),
        "a new outbox": parse_batch(json.dumps(first.batch(first.events(1), "a")).encode(), "a"),
        "out of order": device.of(device.events(2)[::-1]),
        "one event twice": device.of([event := device.event(), {**event, "seq": device.seq + 1}]),
    }


@pytest.mark.parametrize(
    "kind",
    ["an erasure", "a refused event", "a new outbox", "out of order", "one event twice"],
)
def test_what_takes_more_is_left_for_later(store: Store, devices: list[Device], kind: str) -> None:
    """Nothing of it is stored, whatever becomes of the others."""
    odd = odd_batches(devices[0], devices[1].event())[kind]
    stored = store.store_together([odd, devices[2].next()], NOW_MS)
    assert stored[0] is None
    ids = {event.event_id for event in odd.events}
    with store.reading() as connection:
        query = sqlalchemy.select(events.c.event_id).where(events.c.event_id.in_(ids))
        assert connection.execute(query).all() == []
    assert (stored[1] is None) == (kind == "one event twice")


def test_a_head_is_judged_with_its_batch(store: Store, devices: list[Device]) -> None:
    """So a device that sends one gets what is said of it."""
    device = DeviceTree(new_key())
    first = parse_batch(json.dumps(device.batch(device.events(2), "a")).encode(), "a")
    store.store_batch(first, NOW_MS)
    head = parse_batch(json.dumps(device.batch([device.head()], "a")).encode(), "a")
    assert [each is None for each in store.store_together([head, devices[2].next()], NOW_MS)] == [
        True,
        False,
    ]


def test_an_event_that_an_erasure_has_named_before_is_stored_as_erased(
    store: Store, devices: list[Device]
) -> None:
    """It is looked up, which is done with its batch alone."""
    one, other, _ = devices
    secret = one.event({"content": "secret"})
    erasure = other.event({"event_ids": [secret["event_id"]]}, type="compliance.erased")
    store.store_batch(other.of([erasure]), NOW_MS)
    batch = one.of([secret])
    assert store.store_together([batch], NOW_MS) == [None]
    assert store.store_batch(batch, NOW_MS).accepted == 1
    page, _ = store.events_after("a", 0, 100, 10**6)
    assert "secret" not in str(page)


def test_the_first_of_two_batches_of_an_outbox_goes_first(
    store: Store, devices: list[Device]
) -> None:
    """The other comes after it, alone."""
    first, second = devices[0].next(), devices[0].next()
    stored = store.store_together([first, second, devices[2].next()], NOW_MS)
    assert [each is None for each in stored] == [False, True, False]
    assert seqs(store, devices[0]) == [1, 2, 3]


def test_an_event_that_came_by_another_outbox_leaves_all_for_later(
    store: Store, devices: list[Device]
) -> None:
    """As after a salvage. Alone, each gets the receipt that it always got."""
    former, salvaged, _ = devices
    sent = former.events(2)
    store.store_batch(former.of(sent), NOW_MS)
    again = [{**each, "seq": salvaged.seq + place} for place, each in enumerate(sent, 1)]
    batches = [salvaged.of(again), devices[2].next()]
    before = transactions(store)
    assert store.store_together(batches, NOW_MS) == [None, None]
    assert transactions(store) == before
    assert [store.store_batch(each, NOW_MS)[:2] for each in batches] == [(0, 2), (2, 0)]


def test_nobody_waits_for_another_ones_lock(store: Store, devices: list[Device]) -> None:
    """An outbox that is written to, and a client that is erased from, are left for later."""
    lost = [devices[0].next(), devices[1].next(), devices[2].next()]
    with store.writing(f"outbox {devices[0].outbox_id}", within="a"):
        begun = time.monotonic()
        stored = store.store_together(lost, NOW_MS)
        assert [each is None for each in stored] == [True, False, False]
        with store.writing("b"):
            more = [devices[1].next(), devices[2].next()]
            assert [each is None for each in store.store_together(more, NOW_MS)] == [False, True]
        assert time.monotonic() - begun < 3
    assert_accounts_hold(store, devices[1:])


def test_an_account_that_another_holds_keeps_nobody_waiting(
    store: Store, devices: list[Device]
) -> None:
    """As by hand, without the outbox's lock."""
    batches = [each.next() for each in devices]
    with store.reading() as connection:
        mine = heads.select().where(heads.c.outbox_id == devices[0].outbox_id)
        connection.execute(mine.with_for_update())
        assert [each is None for each in store.store_together(batches, NOW_MS)] == [
            True,
            False,
            False,
        ]
    assert_accounts_hold(store, devices)


def test_an_event_that_another_holds_keeps_the_others_for_a_moment(
    store: Store, devices: list[Device]
) -> None:
    """Then each is for itself: none is stored, so that each can be."""
    sent = devices[0].events(1)
    row = {
        **{name: sent[0][name] for name in ("event_id", "type", "timestamp_ms", "digest")},
        "client_id": "a", "outbox_id": "", "seq": 0, "data": "", "chain": "",
        "received_at_ms": 0, "sent_at_ms": 0,
    }  # fmt: skip
    batches = [devices[0].of(sent), devices[2].next()]
    with store.writing("test") as connection:
        connection.execute(insert(events).values(row))
        begun = time.monotonic()
        assert store.store_together(batches, NOW_MS) == [None, None]
        assert time.monotonic() - begun < 3
        assert store.store_batch(batches[1], NOW_MS).accepted == 2
        connection.rollback()
    assert store.store_batch(batches[0], NOW_MS).accepted == 1


def test_a_commit_that_is_warned_of_gives_no_receipt(store: Store, devices: list[Device]) -> None:
    """PostgreSQL reports it as done, as after a wait for a standby that somebody cancelled."""
    with store.administering() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE WARNING 'not replicated'; RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER warns AFTER UPDATE ON heads DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION warn()"
        )
    with pytest.raises(StorageError, match="not replicated") as caught:
        store.store_together([each.next() for each in devices], NOW_MS)
    assert caught.value.in_doubt


# --- the requests ---


class Requests:
    """Bodies that wait until they are let in all at once."""

    def __init__(self, store: Store) -> None:
        self._gate = Gate(1, 1, 30.0)
        self._together = Together(store, self._gate, Meter(), 32)

    async def receipts(self, bodies: list[tuple[bytes, str, str]]) -> list[Any]:
        async with self._gate.passing(NOBODY):
            sent = [asyncio.create_task(self._together.receipt(*each)) for each in bodies]
            await asyncio.sleep(0)
        return await asyncio.gather(*sent, return_exceptions=True)


def test_each_gets_its_own_answer(store: Store, devices: list[Device]) -> None:
    """One that is no batch, one of another client, and large ones change nothing for others."""
    one, other, last = devices
    bodies = [
        (one.body(one.events(2)), "identity", "a"),
        (b"{", "identity", "a"),
        (gzip.compress(other.body(other.events(3))), "gzip", "a"),
        (last.body(last.events(1)), "identity", "a"),
        (gzip.compress(b" " * 10**6), "gzip", "b"),
        (b" " * (SMALL_BYTES + 1), "identity", "b"),
    ]
    receipts = run(Requests(store).receipts(bodies))
    assert [each["accepted"] for each in (receipts[0], receipts[2])] == [2, 3]
    assert receipts[0]["first_event_id"] != receipts[2]["first_event_id"]
    assert [each.status for each in (receipts[1], receipts[3])] == [400, 403]
    assert all(isinstance(each, RefusedError) for each in (receipts[1], receipts[3]))
    assert receipts[4:] == [None, None]
    assert len({xmin for _, seq, xmin in transactions(store) if seq > 1}) == 1


def test_one_that_gives_up_takes_nobody_along(store: Store, devices: list[Device]) -> None:
    """Its batch is stored all the same: it may have been sent for all it knows."""
    gate = Gate(1, 1, 30.0)
    together = Together(store, gate, Meter(), 32)

    async def send() -> list[Any]:
        async with gate.passing(NOBODY):
            bodies = [each.body(each.events(1)) for each in devices]
            sent = [
                asyncio.create_task(together.receipt(body, "identity", device.client_id))
                for body, device in zip(bodies, devices, strict=True)
            ]
            await asyncio.sleep(0)
            sent[0].cancel()
        return await asyncio.gather(*sent, return_exceptions=True)

    gone, *others = run(send())
    assert isinstance(gone, asyncio.CancelledError)
    assert [each["highest_seq"] for each in others] == [2, 2]
    assert seqs(store, devices[0]) == [1, 2]


def test_who_cannot_get_in_is_asked_to_come_again(store: Store, devices: list[Device]) -> None:
    """And the next one begins anew."""
    gate = Gate(1, 1, 0.01)
    together = Together(store, gate, Meter(), 32)
    body = devices[0].body(devices[0].events(1))

    async def send() -> Any:
        async with gate.passing(NOBODY):
            with pytest.raises(RefusedError) as caught:
                await together.receipt(body, "identity", "a")
            assert caught.value.status == 503
        return await together.receipt(body, "identity", "a")

    assert run(send())["accepted"] == 1


def test_many_devices_of_a_collector_get_their_receipts(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """What is sent twice at once included: each event is there once, and every account holds."""
    url = postgres_server.new_database()
    with (
        CollectorProcess(tmp_path, database_url=url, arguments=["--in-flight", "200"]) as collector,
        ThreadPoolExecutor(24) as pool,
    ):
        clients = [collector.client(f"device-{number}") for number in range(8)]
        chains = [EventChain() for _ in clients for _ in range(3)]

        def send(number: int) -> None:
            client, chain = clients[number % 8], chains[number]
            for _ in range(10):
                batch = chain.batch(chain.events(3), client.client_id)
                with requests.Session() as session:
                    for _ in range(2):
                        answer = session.post(
                            f"{client.url}/v1/events", json=batch, headers=client.headers,
                            timeout=30,
                        )  # fmt: skip
                        answer.raise_for_status()
                        receipt = answer.json()
                        assert receipt["accepted"] + receipt["duplicates"] == 3
                        assert receipt["highest_seq"] == chain.seq

        list(pool.map(send, range(len(chains))))
        for client in clients:
            outboxes = client.get("/v1/outboxes", whole="true")["outboxes"]
            assert [(each["events"], each["missing"], each["chain"]) for each in outboxes] == [
                (30, [], "intact")
            ] * 3
