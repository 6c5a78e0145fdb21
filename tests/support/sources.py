"""The events that queries read: in an outbox, and of one client in a collector of either kind."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.collector.tables import events as collected
from tracker.collector.tables import events_of
from tracker.ids import new_id
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.source import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, FromClause

    from tracker.collector.store import Store

START_MS = 1_793_534_400_000


class Logged(NamedTuple):
    """An event as it was logged."""

    type: str
    session_id: str | None = "s-1"
    data: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    timestamp_ms: int = START_MS
    agent_id: str | None = None
    user_id: str | None = None
    trace: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


@dataclass
class Source:
    """Events to query, with a connection to read them by.

    Attributes:
        connection: The connection.
        events: The table.
        client_id: The client; None in an outbox.
        ids: The event ids, in order.
    """

    connection: Connection
    events: FromClause
    client_id: str | None = None
    ids: list[str] = field(default_factory=list)

    def store(self, logged: Iterable[Logged]) -> None:
        """Store events after those that are there."""
        logged, rows = list(logged), []
        for each in logged:
            self.ids.append(new_id())
            row = {**each._asdict(), "event_id": self.ids[-1], "seq": len(self.ids)}
            for name in ("data", "trace", "context"):
                text = json.dumps(row[name], ensure_ascii=False, separators=(",", ":"))
                row[name] = None if row[name] is None else text
            rows.append({**row, "digest": "0" * 64, "chain": "0" * 64})
        if not rows:
            return
        if self.client_id is None:
            names = ", ".join(rows[0])
            signs = ", ".join("?" * len(rows[0]))
            self.connection.exec_driver_sql(
                f"INSERT INTO events ({names}) VALUES ({signs})",  # noqa: S608 - our own names
                [tuple(row.values()) for row in rows],
            )
            return
        client = {"client_id": self.client_id, "outbox_id": str(uuid.UUID(int=1))}
        times = {"received_at_ms": START_MS, "sent_at_ms": START_MS}
        traced = [{"trace_id": each.trace and each.trace["trace_id"]} for each in logged]
        self.connection.execute(
            collected.insert(),
            [{**row, **client, **times, **of} for row, of in zip(rows, traced, strict=True)],
        )


@contextlib.contextmanager
def outbox() -> Iterator[Source]:
    """Lend an empty outbox."""
    with empty_outbox() as connection:
        yield Source(connection, EVENTS)


@contextlib.contextmanager
def client_of(store: Store) -> Iterator[Source]:
    """Lend a client without events in a collector, between two that have some."""
    client_id = f"client-{uuid.uuid4()}"
    with store.writing(client_id) as connection:
        Source(connection, events_of("earlier"), "earlier").store([Logged("message.logged")] * 3)
        yield Source(connection, events_of(client_id), client_id)
        Source(connection, events_of("later"), "later").store([Logged("message.logged")] * 3)
