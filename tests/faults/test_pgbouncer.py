"""PgBouncer between the collector and PostgreSQL, giving out a connection a transaction."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import make_url

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.former import former_database
from tests.support.forwarding import ForwardProcess, forward, store_events
from tests.support.otlp import spans_in, success
from tests.support.pgbouncer import running_pgbouncer
from tests.support.server import ScriptedServer
from tests.support.uploads import wait_until
from tracker.collector.keys import Keys
from tracker.collector.main import cli
from tracker.collector.rollups.position import CONVERSATIONS, position
from tracker.collector.rollups.reads import reads_of
from tracker.collector.rollups.roller import CLAIM
from tracker.collector.rollups.rolling import Rolling
from tracker.collector.store import Store
from tracker.ids import IdSource
from tracker.queries.filters import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.faults


@pytest.fixture
def pooled(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new database by way of PgBouncer, which has three connections for all."""
    with running_pgbouncer(postgres_server, postgres_server.new_database()) as url:
        yield url


@pytest.mark.timeout(300)
def test_no_batch_and_no_read_fails_behind_a_transaction_pool(
    pooled: str, tmp_path: Path, full: bool
) -> None:
    """Eight clients' batches, resends and reads share three server connections."""
    rounds = 75 if full else 15
    with CollectorProcess(tmp_path, database_url=pooled) as collector:
        clients = [collector.client(f"c{number}") for number in range(8)]

        def work(number: int) -> int:
            client, chain = clients[number], EventChain()
            for _ in range(rounds):
                events = chain.events(5)
                assert client.send(chain, events)["accepted"] == 5
                assert client.send(chain, events)["duplicates"] == 5
                assert len(client.get("/v1/conversations")["conversations"]) == 1
            (outbox,) = client.outboxes()
            assert (outbox["missing"], outbox["chain"]) == ([], "intact")
            return int(outbox["events"])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [5 * rounds] * 8
        assert "storage" not in collector.stderr


def test_a_revoked_key_is_out_at_once_behind_a_transaction_pool(
    pooled: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A LISTEN is deaf there, so each request looks its key up; a way around the pool is heard."""
    direct = postgres_server.url(str(make_url(pooled).database))
    (tmp_path / "other").mkdir()
    around = CollectorProcess(
        tmp_path / "other", database_url=pooled, arguments=["--direct-database", direct]
    )
    with CollectorProcess(tmp_path, database_url=pooled) as through, around:
        deaf = "each request looks its API key up (no NOTIFY comes back"
        assert (deaf in through.stderr, deaf in around.stderr) == (True, False)
        clients = [CollectorClient(each.url, "test-client", through.api_key)
                   for each in (through, around)]  # fmt: skip
        for client in clients * 2:
            assert client.get("/v1/ping") == {"protocol": 1}
        with through.store() as store:
            assert Keys(store).revoke(Keys(store).list()[-1].id)
        time.sleep(0.2)  # what is told needs milliseconds; nothing here shows when it has come
        for client in clients:
            with pytest.raises(requests.HTTPError, match="401"):
                client.get("/v1/ping")


def test_one_process_forwards_and_another_after_its_death(pooled: str) -> None:
    """Its lock is that of a transaction: it holds while others use the pool, and ends with it."""
    store, chain = Store(pooled), EventChain()
    with ScriptedServer() as receiver:
        receiver.otherwise = success()
        store_events(store, chain, chain.events(3))
        with ForwardProcess(pooled, receiver.url):
            receiver.wait_for(1, timeout=30)
            for _ in range(3):
                store_events(store, chain, chain.events(3))
                assert forward(pooled, receiver.url).exit_code == 1
            receiver.wait_for(2, timeout=30)
        store_events(store, chain, chain.events(3))
        assert forward(pooled, receiver.url).exit_code == 0
        assert len({span.span_id for span in spans_in(*receiver.requests)}) == 15
    store.close()


def test_one_process_rolls_up_behind_the_pool_and_another_after_its_end(pooled: str) -> None:
    """Its claim holds while others use the pool; what rolls up in a server follows what arrives."""
    store, chain = Store(pooled), EventChain()
    roll = ["roll", "--once", "--database", pooled]
    with store.claimed(CLAIM) as check:
        for _ in range(3):
            store_events(store, chain, chain.events(3))
            check()
            refused = CliRunner().invoke(cli, roll)
            assert "another process rolls up the events of this database" in refused.output
    assert CliRunner().invoke(cli, roll).output == "rolled up through event 9\n"
    with Rolling(store):
        store_events(store, chain, chain.events(3))

        def through() -> int | None:
            with store.reading() as connection:
                return position(connection, CONVERSATIONS)

        wait_until(lambda: through() == 12, "the events are rolled up", 60)
        with store.reading() as connection:
            page = reads_of("kiosk-17").conversations(connection, EVERYTHING, "open", 50)
    assert [each.messages for each in page.conversations] == [12]
    store.close()


@pytest.mark.timeout(300)
def test_a_migration_runs_through_the_pool_beside_senders(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Its indexes and partitions are made, and every batch meanwhile has a receipt in the end."""
    url = former_database(postgres_server, 5_000)
    with (
        running_pgbouncer(postgres_server, url, size=6) as pooled,
        CollectorProcess(tmp_path, database_url=pooled) as collector,
    ):
        client, chain = collector.client("c"), EventChain()

        def work() -> int:
            sent = 0
            while not migrated.is_set():
                batch = chain.batch([chain.event(event_id=ids.new())], "c")
                while (answer := client.post(batch)).status_code != 200:
                    assert answer.status_code == 503, answer.text
                sent += 1
            return sent

        ids, migrated = IdSource(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(work)
            try:
                done = CliRunner().invoke(cli, ["migrate", "--database", pooled])
            finally:
                migrated.set()
            assert done.exit_code == 0, done.output
            sent = sending.result()
        (outbox,) = client.outboxes()
        assert (outbox["events"], outbox["missing"]) == (sent, [])
        assert CliRunner().invoke(cli, ["migrate", "--check", "--database", pooled]).exit_code == 0
