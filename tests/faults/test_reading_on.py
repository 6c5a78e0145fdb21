"""Reading in the order of ids while several collectors write to one PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import CollectorProcess, EventChain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import CollectorClient
    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.faults

OUTBOXES, EVENTS = 10, 500


@pytest.mark.timeout(600)
def test_a_reader_gets_each_event_once_while_three_collectors_store(
    postgres_server: PostgresServer, tmp_path: Path, full: bool
) -> None:
    """Ten outboxes of one client, of each its events in order; 100,000 events in full."""
    batches = 20 if full else 4
    url = postgres_server.new_database()
    with ExitStack() as stack, ThreadPoolExecutor(OUTBOXES) as pool:
        collectors = [
            stack.enter_context(CollectorProcess(tmp_path, database_url=url)) for _ in range(3)
        ]
        senders = [collector.client("kiosk-17") for collector in collectors]
        done = threading.Event()
        reading = pool.submit(read_until, senders[0], done)
        sending = [
            pool.submit(send, senders[number % 3], batches) for number in range(OUTBOXES - 1)
        ]
        chains = [send(senders[0], batches), *(job.result() for job in sending)]
        done.set()
        found = reading.result()
    assert len(found) == OUTBOXES * batches * EVENTS
    assert Counter(outbox for outbox, _ in found) == {
        chain.outbox_id: batches * EVENTS for chain in chains
    }
    seqs: dict[str, int] = {}
    for outbox, seq in found:
        assert seq == seqs.get(outbox, 0) + 1
        seqs[outbox] = seq


def send(client: CollectorClient, batches: int) -> EventChain:
    """Send one outbox's events, each batch until there is a receipt."""
    chain = EventChain()
    for _ in range(batches):
        events = chain.events(EVENTS)
        while client.post(chain.batch(events, client.client_id)).status_code != 200:
            pass  # busy; the answer itself took a while
    return chain


def read_until(client: CollectorClient, done: threading.Event) -> list[tuple[str, int]]:
    """Read on by the id of the last event, until nothing comes after all were sent."""
    found: list[tuple[str, int]] = []
    after = 0
    with requests.Session() as session:
        session.headers.update(client.headers)
        while True:
            last = done.is_set()
            url = f"{client.url}/v1/events?after={after}"
            page = session.get(url, timeout=60).json()["events"]
            found += [(event["outbox_id"], event["seq"]) for event in page]
            if page:
                after = page[-1]["id"]
            elif last:
                return found
