"""What a batch and an event cost, which the table of sizes on the page is worked out from."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from sqlalchemy import make_url

from tests.fleet.programs import children_of
from tests.support.collector import CollectorProcess, EventChain
from tests.support.postgresql import running_server, why_not
from tracker.ids import IdSource

if TYPE_CHECKING:
    from tests.fleet.conftest import Tell
    from tests.support.collector import CollectorClient
    from tests.support.postgresql import PostgresServer

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

OUTBOXES, SMALL, LARGE = 20, 5, 200
DATA = {"role": "user", "content": "Where is my order? It was to come on Monday. " * 2}
SETTINGS = "-c listen_addresses='' -c shared_buffers=128MB -c max_wal_size=2GB"
TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Of one batch: milliseconds of processors, and bytes."""

    collector_ms: float
    database_ms: float
    wal_bytes: float
    disk_bytes: float


def test_what_a_batch_and_an_event_cost(tmp_path: Path, full: bool, tell: Tell) -> None:
    """One collector on one server that flushes: batches of two sizes give both."""
    if reason := why_not():
        pytest.skip(reason)
    with running_server(SETTINGS) as server:
        url = server.new_database()
        with CollectorProcess(tmp_path, database_url=url, arguments=["--rate", "1000000"]) as one:
            clients = [one.client(f"device-{number}") for number in range(OUTBOXES)]
            chains = [EventChain() for _ in clients]
            measure(server, url, one, clients, chains, SMALL, 5)  # warm
            small = measure(server, url, one, clients, chains, SMALL, 100 if full else 15)
            large = measure(server, url, one, clients, chains, LARGE, 20 if full else 4)
    event = Cost(
        *((more - less) / (LARGE - SMALL) for more, less in zip(large, small, strict=True))
    )
    batch = Cost(*(less - SMALL * each for less, each in zip(small, event, strict=True)))
    size = len(json.dumps(chains[0].event(DATA, event_id=IdSource().new())))
    tell(
        f"of {size} B each: collector {batch.collector_ms:.2f} ms a batch,"
        f" {event.collector_ms * 1000:.0f} µs an event; PostgreSQL {batch.database_ms:.2f} ms,"
        f" {event.database_ms * 1000:.0f} µs; WAL {batch.wal_bytes:.0f} B, {event.wal_bytes:.0f} B;"
        f" disk {event.disk_bytes:.0f} B an event"
    )
    assert event.wal_bytes > 0


def measure(
    server: PostgresServer,
    url: str,
    collector: CollectorProcess,
    clients: list[CollectorClient],
    chains: list[EventChain],
    size: int,
    rounds: int,
) -> Cost:
    """Send `rounds` batches of each outbox; return what one of them cost."""
    ids = IdSource()
    batches = [
        [
            chain.batch(
                [
                    chain.event(
                        DATA,
                        event_id=ids.new(),
                        timestamp_ms=time.time_ns() // 1_000_000,
                    )
                    for _ in range(size)
                ],
                client.client_id,
            )
            for _ in range(rounds)
        ]
        for client, chain in zip(clients, chains, strict=True)
    ]

    def send(number: int) -> None:
        for batch in batches[number]:
            assert clients[number].post(batch).ok

    before = spent(server, url, collector)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(len(clients))))
    after = spent(server, url, collector)
    count = len(clients) * rounds
    return Cost(*((late - early) / count for late, early in zip(after, before, strict=True)))


def spent(server: PostgresServer, url: str, collector: CollectorProcess) -> Cost:
    """Return what was spent so far in all."""
    database = str(make_url(url).database)
    ((wal, disk),) = server.sql(
        "SELECT pg_current_wal_insert_lsn() - '0/0', pg_database_size(current_database())",
        database,
    )
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    # The parent last: it has the time of those that have ended by then.
    backends = sum(_milliseconds(pid) for pid in (*children_of(postmaster), postmaster))
    return Cost(_milliseconds(collector.pid), backends, float(wal), float(disk))


def _milliseconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) * 1000 / TICKS
