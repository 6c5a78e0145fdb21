"""`tracker-collector migrate` beside a running collector: nothing is refused for good, or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from click.testing import CliRunner, Result

import tracker
from tests.support.collector import CollectorClient, EventChain, ForkedCollector
from tests.support.former import former_database, id_at
from tracker.collector.batch import parse_batch
from tracker.collector.keys import Keys
from tracker.collector.main import cli
from tracker.collector.partitioning import catalog
from tracker.collector.schema import missing
from tracker.collector.store import Store

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.slow

ROOT = Path(tracker.__file__).parents[1]
PATHS = (
    *("/v1/outboxes", "/v1/metrics", "/v1/usage", "/v1/history", "/v1/overview", "/v1/agents"),
    *("/v1/conversations/s1", "/v1/activities", "/v1/events"),
)


def migrate(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["migrate", *arguments, "--database", url])


_ONE_STEP = """
import os, signal, sys
from tracker.collector.partitioning import migration
from tracker.collector.store import Store

def say(step):
    print(step, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

migration.run(Store(sys.argv[1], schema="ignore"), say)
"""


def one_step(url: str) -> str:
    """Migrate in a process that is killed after one step; return what it said, if anything."""
    done = subprocess.run(
        [sys.executable, "-c", _ONE_STEP, url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (-signal.SIGKILL if done.stdout else 0)
    return done.stdout


def reader(url: str, port: int) -> CollectorClient:
    store = Store(url, schema="ignore")
    key, _ = Keys(store).create("former")
    store.close()
    return CollectorClient(f"http://127.0.0.1:{port}", "former", key)


def answers(client: CollectorClient) -> list[Any]:
    """Return what the collector answers of all events, when they were read again apart."""
    found = []
    for path in PATHS:
        asked = {"session_id": "s1"} if path == "/v1/history" else {}
        answer = client.get(path, **asked)
        for outbox in answer.get("outboxes", ()) if isinstance(answer, dict) else ():
            del outbox["checked_at_ms"]
        found.append(answer)
    return found


class Sender:
    """A client that sends batch after batch while the block lasts, and notes every answer.

    Its ids are UUIDv7 of now if they are `timed`, or else of no time.
    """

    def __init__(self, client: CollectorClient, *, timed: bool) -> None:
        self.accepted = 0
        self._timed = timed
        self.refused: list[tuple[int, bool]] = []
        self._client = client
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        chain = EventChain()
        while not self._stopping.is_set():
            batch = chain.batch([self._event(chain) for _ in range(20)], self._client.client_id)
            while (answer := self._client.post(batch)).status_code != 200:
                self.refused.append((answer.status_code, "Retry-After" in answer.headers))
            self.accepted += answer.json()["accepted"]

    def _event(self, chain: EventChain) -> dict[str, Any]:
        if not self._timed:  # a migration that is under way refuses most of these
            return chain.event()
        return chain.event(event_id=id_at(time.time_ns() // 1_000_000))


def test_a_migration_beside_senders_loses_nothing_and_changes_no_answer(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Every request is answered with a receipt, or with 503 and when to try again."""
    url = former_database(postgres_server, 20_000)
    with ForkedCollector(tmp_path, database_url=url) as collector:
        former = reader(url, collector.port)
        before = answers(former)
        asked = migrate(url, "--check")
        assert (asked.exit_code, "3 events beyond it move" in asked.stdout) == (1, True)
        assert answers(former) == before
        clients = [collector.client(f"kiosk-{number}") for number in range(3)]
        with Sender(clients[0], timed=True) as one, Sender(clients[1], timed=False) as two:
            done = migrate(url, "--json")
        assert done.exit_code == 0, done.output
        assert len(json.loads(done.stdout)["steps"]) >= 4
        assert set(one.refused + two.refused) <= {(503, True)}
        assert answers(former) == before
        for client, sender in zip(clients, (one, two), strict=False):
            (outbox,) = client.outboxes()
            assert (outbox["events"], outbox["missing"]) == (sender.accepted, [])
            assert outbox["chain"] == "intact"
        chain = EventChain()
        assert clients[2].send(chain, chain.events(5))["accepted"] == 5
    assert migrate(url, "--check").exit_code == 0
    assert migrate(url).stdout == "nothing to do\n"


def test_a_migration_that_is_killed_after_any_step_goes_on(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A collector runs all the time: after each kill it takes events and answers as before."""
    url = former_database(postgres_server, 2_000)
    said: list[str] = []
    with ForkedCollector(tmp_path, database_url=url, arguments=["--no-migrate"]) as collector:
        former = reader(url, collector.port)
        before, chain = answers(former), EventChain()
        client = collector.client("kiosk")
        postgres_server.sql("DROP INDEX ix_events_type", url.partition("@/")[2].partition("?")[0])
        while step := one_step(url):
            said.append(step)
            ids = [id_at(time.time_ns() // 1_000_000) for _ in range(3)]
            sent = [chain.event(event_id=each) for each in ids]
            assert client.send(chain, sent)["accepted"] == 3
            assert answers(former) == before
        (outbox,) = client.outboxes()
    assert len(said) >= 6, said
    assert (outbox["events"], outbox["missing"]) == (3 * len(said), [])
    store = Store(url, schema="require")
    with store.reading() as connection:
        names = [each.name for each in catalog.partitions(connection)]
        outside = connection.exec_driver_sql("SELECT count(*) FROM events_other").scalar()
    store.close()
    assert (names[0], names[-1], outside) == (catalog.EARLIER, catalog.OTHER, 3)


def test_a_database_that_sorts_texts_by_a_language_is_divided_all_the_same(
    postgres_server: PostgresServer,
) -> None:
    """Each event goes to its month, and none is stored twice."""
    language = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"
    url = former_database(postgres_server, 500, language)
    assert migrate(url).exit_code == 0
    now_ms = time.time_ns() // 1_000_000
    store = Store(url)
    with store.reading() as connection:
        events = store.events_after("former", 0, 1_000, 10**6)[0]
        found = catalog.partitions(connection)
        month = next(each for each in found if each.upper is None or each.upper > id_at(now_ms))
        count = connection.exec_driver_sql(f"SELECT count(*) FROM {month.name}").scalar()  # noqa: S608 - a name of ours
    assert (len(events), month.name, count) == (503, catalog.EARLIER, 500)
    chain = EventChain()
    sent = [chain.event(event_id=id_at(now_ms + 86_400_000 * days)) for days in (0, 40, 70, 800)]
    for expected in (4, 0):
        body = json.dumps(chain.batch(sent, "kiosk")).encode()
        stored = store.store_batch(parse_batch(body, "kiosk"), now_ms)
        assert (stored.accepted, stored.duplicates) == (expected, 4 - expected)
    store.close()


def test_the_version_before_goes_on_with_a_divided_database(
    postgres_server: PostgresServer,
) -> None:
    """It finds nothing to add at its start, and its statements store each event once."""
    url = former_database(postgres_server, 200)
    assert migrate(url).exit_code == 0
    engine = sqlalchemy.create_engine(url)
    now_ms = time.time_ns() // 1_000_000
    values = [("former", number, id_at(now_ms - 40 * number * 86_400_000)) for number in (1, 2, 3)]
    with engine.begin() as connection:
        lacking = missing(connection)
        assert (lacking.names(), lacking.indexes) == ([], [])
        counts = [connection.exec_driver_sql(FORMER_INSERT, values).rowcount for _ in range(2)]
        connection.exec_driver_sql(FORMER_HEAD, ("former", "0" * 36))
    engine.dispose()
    assert counts == [3, 0]
    store = Store(url)
    rows, _ = store.events_after("former", 0, 1_000, 10**6)
    assert [row["event_id"] for row in rows][-3:] == [event_id for _, _, event_id in values]
    store.close()


FORMER_INSERT = """
INSERT INTO events (client_id, outbox_id, sent_at_ms, received_at_ms, seq, event_id, type,
                    timestamp_ms, data, digest, chain)
VALUES (%s, '000000000000000000000000000000000000', 1, 1, %s, %s, 't', 1, '{}', 'd', 'c')
ON CONFLICT (client_id, event_id) DO NOTHING
"""
FORMER_HEAD = """
INSERT INTO heads (client_id, outbox_id, version) VALUES (%s, %s, 1)
ON CONFLICT (client_id, outbox_id) DO UPDATE SET version = heads.version + 1
"""


@pytest.fixture
def begun(postgres_server: PostgresServer) -> str:
    """The URL of a database whose migration was killed before it was through."""
    url = former_database(postgres_server, 100)
    while "keeps new events below" not in one_step(url):
        pass
    return url


def test_a_server_says_that_a_migration_is_not_finished(begun: str) -> None:
    """It starts, takes events, and tells the operator what is left to do."""
    store = Store(begun)
    assert store.schema_warning is not None
    assert "not finished" in store.schema_warning
    store.close()
    assert migrate(begun).exit_code == 0
    store = Store(begun)
    assert store.schema_warning is None
    store.close()
