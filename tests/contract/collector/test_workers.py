"""Several processes on one port, and several replicas, on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import requests
import sqlalchemy

from tests.support.collector import CollectorClient, CollectorProcess, EventChain, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.slow

_WARN = """
CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE WARNING 'going down'; RETURN NULL; END $$
"""
_WARN_AT_COMMIT = """
CREATE CONSTRAINT TRIGGER warning AFTER INSERT OR UPDATE ON heads
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()
"""


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def metrics() -> str:
    """The port for metrics."""
    return str(free_port())


@pytest.fixture
def served(database: str, metrics: str, tmp_path: Path) -> Iterator[CollectorProcess]:
    """A server with three workers."""
    arguments = ["--workers", "3", "--metrics-port", metrics]
    with CollectorProcess(tmp_path, database_url=database, arguments=arguments) as process:
        yield process


def workers_of(process: CollectorProcess) -> set[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    )
    return {int(pid) for pid in found.stdout.split()}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def client_of(process: CollectorProcess) -> CollectorClient:
    return CollectorClient(process.url, process.client_id, process.api_key)


def test_a_worker_that_is_killed_is_replaced(served: CollectorProcess) -> None:
    """The others go on meanwhile, and every receipt holds."""
    client, chain = client_of(served), EventChain()
    before = workers_of(served)
    assert len(before) == 3
    receipts = 0
    for victim in sorted(before):
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while len(workers_of(served) - before) < 1 or not workers_of(served).isdisjoint({victim}):
            assert time.monotonic() < deadline
            with contextlib.suppress(requests.ConnectionError):  # it was the victim's
                receipts += client.send(chain, chain.events(2))["accepted"]
        before |= workers_of(served)
    assert f"worker {victim} ended with -9" in served.stderr
    assert receipts <= sum(report["events"] for report in served.outboxes())
    assert receipts > 0


def test_sigterm_ends_all_in_order(served: CollectorProcess) -> None:
    """None is left, and the exit code is 0."""
    workers = workers_of(served)
    assert len(workers) == 3
    assert served.stop() == 0
    assert not [pid for pid in workers if is_running(pid)]
    assert served.stderr.count("listening on ") == 1


def test_workers_end_when_their_owner_is_killed(served: CollectorProcess) -> None:
    """Nobody serves on under an address that a new owner wants."""
    workers = workers_of(served)
    served.kill()
    wait_until(lambda: not any(map(is_running, workers)))
    served.start()
    assert served.get("/v1/ping") == {"protocol": 1}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_metrics_are_the_sum_over_workers(served: CollectorProcess, metrics: str) -> None:
    """Whichever of them answers, and also of one that has died."""
    client, chain = client_of(served), EventChain()
    address = f"http://127.0.0.1:{metrics}/metrics"
    for _ in range(30):
        client.send(chain, chain.events(2))
    wanted = 'tracker_collector_events_total{outcome="accepted"} 60.0'
    for _ in range(5):
        assert wanted in requests.get(address, timeout=10).text
    wait_until(
        lambda: "tracker_collector_roll_up_behind 0.0" in requests.get(address, timeout=10).text
    )
    before = workers_of(served)
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(workers_of(served)) == 3 and workers_of(served) != before)
    assert wanted in requests.get(address, timeout=10).text


def test_a_database_that_cannot_be_used_ends_all(database: str, tmp_path: Path) -> None:
    """With the sentence and the code of a single process."""
    arguments = ["--workers", "2", "--durability", "replicated"]
    process = CollectorProcess(tmp_path, database_url=database, arguments=arguments)
    with pytest.raises(RuntimeError, match="synchronous_standby_names"):
        process.start()


def test_replicas_share_the_rate(database: str, tmp_path: Path) -> None:
    """Three of them, a client that asks each in turn: 60 a minute, give or take a tenth."""
    arguments = ["--rate", "60", "--replicas", "3"]
    with contextlib.ExitStack() as stack:
        replicas = [
            stack.enter_context(
                CollectorProcess(tmp_path, database_url=database, arguments=arguments)
            )
            for _ in range(3)
        ]
        clients = [
            CollectorClient(each.url, "test-client", replicas[0].api_key) for each in replicas
        ]
        chain = EventChain()

        def passed(client: CollectorClient) -> int:
            answer = client.post(chain.batch(chain.events(1)))
            assert answer.status_code in (200, 429), answer.text
            return int(answer.status_code == 200)

        while any(map(passed, clients)):  # what was saved up for a burst
            pass
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < 20:
            count += sum(map(passed, clients))
            time.sleep(0.2)
    assert 54 <= count * 3 <= 66


def test_a_commit_with_a_warning_is_no_receipt(
    database: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A database that does not have to be replicated is not said to lack that."""
    with CollectorProcess(tmp_path, database_url=database) as process:
        name = sqlalchemy.make_url(database).database
        assert name is not None
        postgres_server.sql(_WARN, name)
        postgres_server.sql(_WARN_AT_COMMIT, name)
        chain = EventChain()
        answer = client_of(process).post(chain.batch(chain.events(1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert "It is not known whether this request was stored" in answer.text
