"""Deletes events of a client in slices, and keeps the accounts of their outboxes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, insert, select, text

from tracker.collector.retention.selection import IS_ERASED, Selection
from tracker.collector.tables import erased_events, events, rejections
from tracker.queries.source import portions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.collector.store import Store

SLICE = 1_000
"""Events that are deleted in one transaction."""
_READ_SECONDS = 3_600.0
# The version is that of the account, which stays valid: see `accounts`.
PRUNE = """
UPDATE heads SET version = version + 1, counted = counted + 1, events = events - :deleted,
    pruned_through = CASE WHEN pruned_through < :through THEN :through ELSE pruned_through END,
    pruned_before_ms = CASE WHEN pruned_before_ms < :before_ms THEN :before_ms
                       ELSE pruned_before_ms END,
    tail = CASE WHEN highest_seq <= :through THEN NULL ELSE tail END
WHERE client_id = :client_id AND outbox_id = :outbox_id
"""


class Slice(NamedTuple):
    """What was deleted together: how many events, and the id of the last one."""

    deleted: int
    last_id: int


def delete_all(store: Store, selection: Selection) -> Iterator[int]:
    """Delete the events of a selection, slice by slice, and yield how many each one was.

    Raises:
        StorageError: if the database failed. What was deleted by then is in the accounts.
    """
    with store.reading(_READ_SECONDS) as connection:
        last_ids = selection.last_ids(connection)
    for client_id, through_id in last_ids.items():
        some = replace(selection, through_id=through_id)
        last_id = 0
        while last_id < through_id:
            with store.writing(client_id) as connection:
                done = _delete_some(connection, some, client_id, last_id)
            if not done.deleted:
                break
            last_id = done.last_id
            yield done.deleted


def _delete_some(
    connection: Connection, selection: Selection, client_id: str, after_id: int
) -> Slice:
    query = text(
        f"SELECT id, outbox_id, seq, event_id, {IS_ERASED} AS is_erased FROM events"  # noqa: S608 - our own words
        f" WHERE client_id = :of AND id > :after AND {selection.condition}"
        f" ORDER BY id LIMIT {SLICE}"
    )
    values = {**selection.values, "of": client_id, "after": after_id}
    rows = connection.execute(query, values).all()
    if not rows:
        return Slice(0, after_id)
    remember_erased(connection, client_id, [row.event_id for row in rows if row.is_erased])
    for some in portions([row.event_id for row in rows]):
        for table in (rejections, events):
            mine = (table.c.client_id == client_id, table.c.event_id.in_(some))
            connection.execute(delete(table).where(*mine))
    _note(connection, selection, client_id, rows)
    return Slice(len(rows), rows[-1].id)


def remember_erased(connection: Connection, client_id: str, event_ids: Collection[str]) -> None:
    """Keep the ids of erased events, so that one that comes again is stored as erased."""
    for some in portions({each.lower() for each in event_ids}):
        mine = (erased_events.c.client_id == client_id, erased_events.c.event_id.in_(some))
        here = set(connection.execute(select(erased_events.c.event_id).where(*mine)).scalars())
        new = [{"client_id": client_id, "event_id": each} for each in some if each not in here]
        if new:
            connection.execute(insert(erased_events), new)


def _note(
    connection: Connection, selection: Selection, client_id: str, rows: Sequence[Any]
) -> None:
    deleted = Counter(row.outbox_id for row in rows)
    through: dict[str, int] = {}
    for row in rows:
        through[row.outbox_id] = max(row.seq, through.get(row.outbox_id, 0))
    connection.execute(
        text(PRUNE),
        [
            {
                "client_id": client_id,
                "outbox_id": outbox_id,
                "through": through[outbox_id],
                "deleted": deleted[outbox_id],
                "before_ms": selection.before_ms,
            }
            for outbox_id in deleted
        ],
    )
