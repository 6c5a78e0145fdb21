"""The events of a PostgreSQL database are divided by month, and nobody notices."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.support.collector import EventChain, ForkedCollector
from tests.support.former import former_database, id_at
from tracker.collector.batch import parse_batch
from tracker.collector.main import cli
from tracker.collector.partitioning import catalog
from tracker.collector.partitioning.ahead import make_ahead
from tracker.collector.partitioning.months import Month, lowest_id, time_of
from tracker.collector.store import Store
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer
    from tracker.collector.schema import Schema

pytestmark = pytest.mark.slow

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    found = Store(url)
    yield found
    found.close()


class Client:
    """A client with one outbox, whose batches go right into the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client_id = f"client-{uuid.uuid4()}"
        self.chain = EventChain()

    def send(self, events: list[Any]) -> tuple[int, int]:
        """Send a batch; return how many were accepted, and how many were there before."""
        body = json.dumps(self.chain.batch(events, self.client_id)).encode()
        stored = self.store.store_batch(parse_batch(body, self.client_id), NOW_MS)
        return stored.accepted, stored.duplicates

    def event_ids(self) -> list[str]:
        """Return the ids of all events that are stored, in the order of receipt."""
        rows, _ = self.store.events_after(self.client_id, 0, 1_000, 10**6)
        return [row["event_id"] for row in rows]


def tables_of(store: Store, client: Client) -> dict[str, str]:
    """Return the partition in which each of a client's events is."""
    query = "SELECT event_id, tableoid::regclass::text FROM events WHERE client_id = %s ORDER BY id"
    with store.reading() as connection:
        return dict(map(tuple, connection.exec_driver_sql(query, (client.client_id,))))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


def test_the_ids_of_a_month_are_between_its_bounds() -> None:
    """Its first and its last millisecond, also at the end of a year."""
    for month, after in [(Month(2026, 11), Month(2026, 12)), (Month(2026, 12), Month(2027, 1))]:
        assert month.next == after
        first_ms, end_ms = time_of(month.lower), time_of(month.upper)
        assert Month.of(first_ms) == Month.of(end_ms - 1) == month
        assert Month.of(first_ms - 1) < month < Month.of(end_ms) == after
        assert month.lower < id_at(first_ms) < id_at(end_ms - 1) < month.upper < id_at(end_ms)
        assert lowest_id(first_ms) == month.lower


def test_each_event_is_where_its_id_says_and_all_are_read_in_order(store: Store) -> None:
    """Of this month, of the next, of long ago, of a clock far ahead, and of no time at all."""
    client = Client(store)
    month = Month.of(NOW_MS)
    times = [NOW_MS, time_of(month.upper), NOW_MS - 400 * DAY_MS, NOW_MS + 4_000 * DAY_MS]
    ids = [*map(id_at, times), f"fff{str(uuid.uuid4())[3:]}"]
    sent = [client.chain.event(event_id=each) for each in ids]
    assert client.send(sent) == (5, 0)
    assert list(tables_of(store, client).values()) == [
        *(month.table, month.next.table, catalog.EARLIER, catalog.OTHER, catalog.OTHER)
    ]
    assert client.event_ids() == ids
    assert store.outbox_report(client.client_id, client.chain.outbox_id).chain == "intact"
    # What is there is there once, whichever partition it is in.
    assert client.send([*sent, client.chain.event(event_id=id_at(NOW_MS))]) == (1, 5)


def test_an_event_for_which_there_is_no_partition_is_stored_and_moves_when_there_is(
    store: Store,
) -> None:
    """It keeps its place in the order of receipt, and an erasure still finds it."""
    client = Client(store)
    later_ms = NOW_MS + 200 * DAY_MS
    sent = [client.chain.event(event_id=id_at(each)) for each in (NOW_MS, later_ms, later_ms + 1)]
    client.send(sent)
    before, _ = store.events_after(client.client_id, 0, 10, 10**6)
    month = Month.of(later_ms)
    made = {each.name: each.moved for each in make_ahead(store, NOW_MS, ahead=7)}
    assert made[month.table] == 2
    assert make_ahead(store, NOW_MS, ahead=7) == []
    after, _ = store.events_after(client.client_id, 0, 10, 10**6)
    assert after == before
    assert tables_of(store, client)[sent[1]["event_id"]] == month.table
    assert client.send(sent) == (0, 3)
    named = {"event_ids": [sent[1]["event_id"]]}
    client.send([client.chain.event(named, type="compliance.erased", event_id=id_at(NOW_MS))])
    rows, _ = store.events_after(client.client_id, 0, 10, 10**6)
    assert [row["data"] == '{"erased":true}' for row in rows] == [False, True, False, False]


def test_partitions_are_made_ahead_while_it_serves(url: str, tmp_path: Path) -> None:
    """At the start; the command lists them with bounds and sizes, and makes more if told to."""
    with ForkedCollector(tmp_path, database_url=url) as collector:
        chain = EventChain()
        collector.client("kiosk").send(chain, chain.events(1))
        found = json.loads(run("partitions", "--json", "--database", url).stdout)
        assert found["made"] == []
        month = Month.of(NOW_MS)
        names = [each["name"] for each in found["partitions"]]
        assert names == [catalog.EARLIER, month.table, month.next.table, month.next.next.table,
                         month.next.next.next.table, catalog.OTHER]  # fmt: skip
        assert all(each["bytes"] > 0 for each in found["partitions"])
        more = run("partitions", "--ahead", "4", "--database", url)
        (new,) = [line for line in more.stdout.splitlines() if "new, 0 moved" in line]
        assert "events, 0.1 MiB  from " in new
        collector.client("kiosk-2").send(chain, chain.events(1))


def test_partitions_that_cannot_be_are_refused(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """In SQLite there are none; a table that is not divided yet is first."""
    refused = run("partitions", "--database", str(tmp_path / "c.sqlite3"))
    assert (refused.exit_code, "SQLite has no partitions" in refused.stderr) == (2, True)
    refused = run("partitions", "--database", former_database(postgres_server, 10))
    assert (refused.exit_code, "tracker-collector migrate" in refused.stderr) == (1, True)


def test_a_table_that_is_not_divided_is_told_of(postgres_server: PostgresServer) -> None:
    """At the start of a server and by `doctor`, until `migrate` has divided it, one at a time."""
    url = former_database(postgres_server, 100)
    schemas: tuple[Schema, ...] = ("update", "require")
    for schema in schemas:
        store = Store(url, schema=schema)
        assert store.schema_warning == (
            "events are not divided by month: run `tracker-collector migrate`"
        )
        store.close()
    assert "events are not divided by month" in run("doctor", "--database", url).stdout
    with closing(Store(url)) as store, store.claimed("migration"):
        refused = run("migrate", "--database", url)
    assert (refused.exit_code, "another `tracker-collector migrate`" in refused.stderr) == (1, True)
    assert run("migrate", "--database", url).exit_code == 0
    assert "events are not divided" not in run("doctor", "--database", url).stdout


def test_a_claim_keeps_no_old_rows(postgres_server: PostgresServer, url: str) -> None:
    """Rollers and forwarders hold one for weeks: VACUUM goes on meanwhile."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_xmin IS NOT NULL AND state = 'idle in transaction'"
    )
    with closing(Store(url)) as store, store.claimed("anything"):
        assert postgres_server.sql(query, url_name(url)) == [(0,)]


def test_a_server_that_must_not_migrate_refuses_an_older_schema(
    postgres_server: PostgresServer, url: str
) -> None:
    """It says what to do, and changes nothing; with the present one it starts."""
    with pytest.raises(ConfigurationError, match="run `tracker-collector migrate` first"):
        Store(url, schema="require")
    assert postgres_server.sql("SELECT to_regclass('events')", url_name(url)) == [(None,)]
    Store(url).close()
    store = Store(url, schema="require")
    assert store.schema_warning is None
    store.close()


def test_a_large_table_gets_no_index_at_the_start(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep all from writing; a warning says so, and `migrate` makes it beside them."""
    monkeypatch.setattr(catalog, "BIG_BYTES", 0)
    url = former_database(postgres_server, 100)
    postgres_server.sql("DROP INDEX ix_events_type", url_name(url))
    store = Store(url)
    assert store.schema_warning is not None
    assert "ix_events_type" in store.schema_warning
    store.close()
    asked = run("migrate", "--check", "--database", url)
    assert (asked.exit_code, "make the index ix_events_type" in asked.stdout) == (1, True)
    assert "made the index ix_events_type" in run("migrate", "--database", url).stdout
    store = Store(url)
    assert store.schema_warning is None
    store.close()


def url_name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]
