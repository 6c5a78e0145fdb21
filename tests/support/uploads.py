"""Outboxes that are uploaded: what is put into them, and what they say of it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from tracker import AgentPerformanceTracker
from tracker.events import MESSAGE_LOGGED, make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import sync_state
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.outbox.queue.sync_state import SyncState
    from tracker.outbox.store.ledger import Account


def fill(config: APIConfig, contents: Sequence[str]) -> list[str]:
    """Put messages into the outbox before anything is sent, so that batches are predictable."""
    outbox = Outbox(config)
    try:
        events = [
            make_event(
                MESSAGE_LOGGED,
                {"role": "user", "content": content},
                session_id="s",
                max_bytes=config.max_event_bytes,
            )
            for content in contents
        ]
        outbox.run(lambda transaction: [transaction.append(event) for event in events])
    finally:
        outbox.close()
    return [event.event_id for event in events]


@contextlib.contextmanager
def uploading(config: APIConfig) -> Iterator[AgentPerformanceTracker]:
    """A tracker that begins to upload; by itself it would let its process fork for a while."""
    with AgentPerformanceTracker(config) as tracker:
        tracker.flush(0)
        yield tracker


@contextlib.contextmanager
def look(config: APIConfig) -> Iterator[Connection]:
    """Read the outbox beside whoever has it open; closing a plain file would drop its locks."""
    with make_engine(config.outbox_path, "full", writer=False).connect() as connection:
        yield connection


def state_of(config: APIConfig) -> SyncState:
    with look(config) as connection:
        return sync_state.read_state(connection)


def account_of(config: APIConfig) -> Account:
    with look(config) as connection:
        return ledger.read(connection)


def dead_letters(config: APIConfig) -> list[tuple[str, str, str]]:
    with look(config) as connection:
        rows = connection.exec_driver_sql(
            "SELECT json_extract(data, '$.content'), code, message FROM dead_letters ORDER BY seq"
        )
        return [(content, code, message) for content, code, message in rows]


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still not after {timeout} s: {what}"
        time.sleep(0.01)


def contents(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["data"]["content"] for event in events]


def numbered(count: int) -> list[str]:
    return [f"m{index}" for index in range(count)]
