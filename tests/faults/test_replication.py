"""A receipt means that a synchronous standby has the events: a real pair of PostgreSQL servers."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy import make_url

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.postgresql import PostgresServer, running_server, why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.faults

SETTINGS = "-c listen_addresses='' -c shared_buffers=16MB -c wal_sender_timeout=2s"
NAMED = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (one)'"


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    if reason := why_not():
        pytest.skip(reason)
    with running_server(SETTINGS) as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A standby that the primary's commits wait for."""
    primary.sql(NAMED)
    primary.sql("SELECT pg_reload_conf()")
    with primary.standby("one") as server:
        await_rows(primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'")
        yield server


@pytest.fixture
def collector(
    primary: PostgresServer, standby: PostgresServer, tmp_path: Path
) -> Iterator[CollectorProcess]:
    """A collector on the pair; without a durability of its own, it finds out by itself."""
    assert standby
    with CollectorProcess(tmp_path, database_url=primary.new_database()) as process:
        yield process


def await_rows(server: PostgresServer, query: str) -> list[Any]:
    deadline = time.monotonic() + 30
    while not (rows := server.sql(query)):
        assert time.monotonic() < deadline, query
        time.sleep(0.02)
    return rows


def client_of(collector: CollectorProcess) -> CollectorClient:
    return CollectorClient(collector.url, collector.client_id, collector.api_key)


def slow_post(collector: CollectorProcess, body: object) -> requests.Response:
    return requests.post(
        f"{collector.url}/v1/events", json=body, headers=collector.headers, timeout=60
    )


HOLDING = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_no_receipt_for_what_only_the_primary_has(
    how: str,
    collector: CollectorProcess,
    primary: PostgresServer,
    standby: PostgresServer,
    full: bool,
) -> None:
    """A wait that an operator ends, then the resend, which holds nothing but duplicates."""
    client, chain = client_of(collector), EventChain()
    receipted = chain.events(5)
    assert client.send(chain, receipted)["accepted"] == 5
    standby.stop()
    for _ in range(10 if full else 1):
        events = chain.events(3)
        for _ in range(2):  # the batch, and the same again
            with ThreadPoolExecutor(1) as pool:
                answered = pool.submit(slow_post, collector, chain.batch(events))
                while not answered.done():
                    primary.sql(f"SELECT {how}(pid) FROM ({WAITING}) AS waiting")  # noqa: S608
                    time.sleep(0.05)
            answer = answered.result()
            assert answer.status_code == 503, answer.text
            assert "Retry-After" in answer.headers
            if "not known" not in answer.text:
                assert "Nothing of this request was stored" in answer.text
    ready = requests.get(f"{collector.url}/readyz", timeout=10)
    assert ready.status_code == 503
    primary.stop()
    standby.start()
    standby.promote()
    name = str(make_url(collector.database_url).database)
    held = {row[0] for row in standby.sql("SELECT event_id FROM events", name)}
    assert {event["event_id"] for event in receipted} <= held


@pytest.mark.timeout(300)
def test_a_wait_without_end_is_answered_and_tells_the_truth(
    collector: CollectorProcess, primary: PostgresServer, standby: PostgresServer
) -> None:
    """The primary has the event, and the answer does not deny it; a standby settles it."""
    client, chain = client_of(collector), EventChain()
    client.send(chain, chain.events(1))
    events = chain.events(2)
    subprocess.run(["kill", "-STOP", *walreceivers(standby)], check=True)
    try:
        begun = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(slow_post, collector, chain.batch(events))
            await_rows(primary, WAITING)
            asked = time.monotonic()
            ready = requests.get(f"{collector.url}/readyz", timeout=10)
            assert (ready.status_code, time.monotonic() - asked < 4) == (503, True)
            assert requests.get(f"{collector.url}/v1/ping", headers=collector.headers,
                                timeout=2).ok  # fmt: skip
            answer = answered.result()
        assert time.monotonic() - begun < 40
        assert (answer.status_code, "not known" in answer.text) == (503, True), answer.text
    finally:
        subprocess.run(["kill", "-CONT", *walreceivers(standby)], check=True)
    await_rows(primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'")
    assert slow_post(collector, chain.batch(events)).json()["duplicates"] == 2


def walreceivers(standby: PostgresServer) -> list[str]:
    """Return the pids of the standby: its postmaster and all its children."""
    pid = (standby.folder / "data" / "postmaster.pid").read_text().split()[0]
    children = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=True)
    return [pid, *children.stdout.split()]


@pytest.mark.timeout(300)
def test_an_asynchronous_standby_is_not_enough(primary: PostgresServer, tmp_path: Path) -> None:
    """It is refused where replication is asked for, and told of where it is not."""
    collector = CollectorProcess(
        tmp_path, database_url=primary.new_database(), arguments=["--durability", "replicated"]
    )
    with pytest.raises(RuntimeError, match="synchronous_standby_names"):
        collector.start()
    with CollectorProcess(tmp_path, database_url=primary.new_database()) as local:
        assert "no synchronous standby" in local.stderr
        assert slow_post(local, EventChain().batch(EventChain().events(1))).ok


@pytest.mark.timeout(300)
def test_replication_that_is_switched_off_later_ends_receipts(
    collector: CollectorProcess, primary: PostgresServer
) -> None:
    """The setting is looked at with each batch; when it is back, so are the receipts."""
    client, chain = client_of(collector), EventChain()
    client.send(chain, chain.events(1))
    primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    primary.sql("SELECT pg_reload_conf()")
    await_rows(primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'async'")
    answer = client.post(chain.batch(chain.events(1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_replicated")
    assert collector.says("synchronous_standby_names")
    primary.sql(NAMED)
    primary.sql("SELECT pg_reload_conf()")
    await_rows(primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'")
    assert client.send(chain, chain.events(1))["accepted"] == 1


@pytest.mark.timeout(300)
def test_a_servers_remote_apply_is_not_lowered(
    collector: CollectorProcess, primary: PostgresServer, standby: PostgresServer
) -> None:
    """A receipt then means that a query at the standby shows the event."""
    client, chain = client_of(collector), EventChain()
    primary.sql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
    primary.sql("SELECT pg_reload_conf()")
    client.send(chain, chain.events(1))
    name = str(make_url(collector.database_url).database)
    standby.sql("SELECT pg_wal_replay_pause()")
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(slow_post, collector, chain.batch(chain.events(1)))
        await_rows(primary, WAITING)
        standby.sql("SELECT pg_wal_replay_resume()")
        assert answered.result().status_code == 200
    assert standby.sql("SELECT count(*) FROM events", name) == [(2,)]


@pytest.mark.timeout(300)
def test_one_client_that_waits_does_not_stop_another(
    primary: PostgresServer, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """A hundred batches of one client behind a lock; another's answers, and readiness."""
    with CollectorProcess(tmp_path, database_url=primary.new_database()) as collector:
        busy, calm = collector.client("busy"), collector.client("calm")
        chain, other = EventChain(), EventChain()
        busy.send(chain, chain.events(1))
        name = str(make_url(collector.database_url).database)
        stop = threading.Event()

        def hold() -> None:
            import psycopg

            with psycopg.connect(host=str(primary.folder), user="tracker", dbname=name) as held:
                held.execute("SELECT 1 FROM heads WHERE client_id = 'busy' FOR UPDATE")
                stop.wait(60)

        with ThreadPoolExecutor(102) as pool:
            pool.submit(hold)
            await_rows(
                primary, "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
            )
            bodies = [chain.batch(chain.events(1), "busy") for _ in range(100)]
            posts = [
                pool.submit(requests.post, f"{collector.url}/v1/events", json=body,
                            headers=busy.headers, timeout=60)
                for body in bodies
            ]  # fmt: skip
            await_rows(primary, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            took = []
            for _ in range(50):
                begun = time.monotonic()
                assert calm.send(other, other.events(1))["accepted"] == 1
                took.append(time.monotonic() - begun)
                begun = time.monotonic()
                assert requests.get(f"{collector.url}/readyz", timeout=10).ok
                assert time.monotonic() - begun < 2.5
            stop.set()
            statuses = {post.result().status_code for post in posts}
        tell(f"another client's slowest of 50 beside 100 that wait: {max(took) * 1000:.0f} ms")
        assert max(took) < 1
        assert statuses <= {200, 503}
