"""Drops whole partitions of PostgreSQL, with what is to be kept moved out of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tracker import clock
from tracker.collector.erasure import erasable
from tracker.collector.partitioning import catalog, layout
from tracker.collector.partitioning.months import lowest_id
from tracker.collector.retention.deleting import remember_erased
from tracker.collector.retention.selection import IS_ERASED, Selection
from tracker.events import COMPLIANCE_ERASED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.store import Store

_SECONDS = 3_600.0
_TRIES = 60
_LONGEST_PAUSE = 5.0
_YOUNGER = "SELECT 1 FROM {name} WHERE received_at_ms >= :before_ms OR id > :through_id LIMIT 1"
_NEW = "SELECT 1 FROM {name} WHERE id > :through_id LIMIT 1"
# What has to be read of the partition is read before others have to wait.
_TOTALS = """
CREATE TEMPORARY TABLE pruned_totals ON COMMIT DROP AS
SELECT client_id, outbox_id, max(seq) AS through, count(*) AS deleted FROM {name}
WHERE {condition} GROUP BY client_id, outbox_id
"""
_KEPT = """
CREATE TEMPORARY TABLE pruned_kept ON COMMIT DROP AS
SELECT id FROM {name} WHERE NOT ({condition})
"""
_ERASED = """
INSERT INTO erased_events (client_id, event_id)
SELECT client_id, lower(event_id) FROM {name} WHERE {condition} AND {erased} ON CONFLICT DO NOTHING
"""
_SETTLED = """
DELETE FROM rejections USING {name} AS gone
WHERE gone.client_id = rejections.client_id AND gone.event_id = rejections.event_id
"""
_UNCOUNTED = """
SELECT 1 FROM heads JOIN pruned_totals USING (client_id, outbox_id)
WHERE counted <> version OR NOT whole LIMIT 1
"""
_PRUNE = """
UPDATE heads SET version = version + 1, counted = counted + 1, events = events - deleted,
    pruned_through = greatest(pruned_through, through),
    pruned_before_ms = greatest(pruned_before_ms, :before_ms),
    tail = CASE WHEN highest_seq <= through THEN NULL ELSE tail END
FROM pruned_totals
WHERE heads.client_id = pruned_totals.client_id AND heads.outbox_id = pruned_totals.outbox_id
"""
_NEW_ERASURES = "SELECT client_id, data FROM events WHERE type = :type AND id > :through_id"
_KEEP = "INSERT INTO events SELECT gone.* FROM {name} AS gone JOIN pruned_kept USING (id)"


class Dropped(NamedTuple):
    """A partition that was dropped: its name, and how many events were deleted with it."""

    name: str
    deleted: int


def droppable(store: Store, selection: Selection) -> list[str]:
    """Return the partitions of which all events are older, by their ids and by their receipt.

    Raises:
        StorageError: if the database could not be read.
    """
    if store.dialect != "postgresql" or selection.has_filter:
        return []
    end = lowest_id(selection.before_ms)
    with store.reading(_SECONDS) as connection:
        return [
            each.name
            for each in catalog.partitions(connection)
            if each.upper is not None and each.upper <= end
            and not _finds(connection, _YOUNGER, each.name, selection)
        ]  # fmt: skip


def drop(store: Store, name: str, selection: Selection) -> Dropped | None:
    """Drop a partition; return None if events came to it meanwhile.

    It is read before anything is locked. Then batches and reads wait for the moment in which the
    accounts of its outboxes change, and it goes.

    Raises:
        StorageError: if the database failed, or there was no moment for it.
    """
    with store.writing("retention", _SECONDS) as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        _read(connection, name, selection)
        _lock(connection)
        if _finds(connection, _NEW, name, selection):
            return None
        if connection.exec_driver_sql(_UNCOUNTED).first() is not None:
            return None
        deleted = connection.exec_driver_sql("SELECT sum(deleted) FROM pruned_totals").scalar()
        connection.execute(text(_PRUNE), {"before_ms": selection.before_ms})
        _remember_newly_erased(connection, selection)
        connection.exec_driver_sql(f"ALTER TABLE events DETACH PARTITION {name}")
        connection.exec_driver_sql(_KEEP.format(name=name))
        connection.exec_driver_sql(f"DROP TABLE {name}")
    return Dropped(name, int(deleted or 0))


def _read(connection: Connection, name: str, selection: Selection) -> None:
    """Find out what is in a partition, in which only erasures change anything any more."""
    for statement in (_TOTALS, _KEPT, _ERASED):
        query = statement.format(name=name, condition=selection.condition, erased=IS_ERASED)
        connection.execute(text(query), selection.values)
    connection.exec_driver_sql(_SETTLED.format(name=name))
    connection.exec_driver_sql("ANALYZE pruned_totals, pruned_kept")


def _remember_newly_erased(connection: Connection, selection: Selection) -> None:
    """Keep the ids of events that were erased since the partition was read, or some time before."""
    values = {"type": COMPLIANCE_ERASED, "through_id": selection.through_id}
    for client_id, data in connection.execute(text(_NEW_ERASURES), values).all():
        remember_erased(connection, client_id, erasable(data))


def _lock(connection: Connection) -> None:
    """Exclude all that uses events or accounts, trying a second at a time.

    A batch reads the account of its outbox before it writes, and writes it at its end: so the
    accounts come first.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{layout.LOCK_SECONDS}s'")
    for left in range(_TRIES, -1, -1):
        trial = connection.begin_nested()
        try:
            connection.exec_driver_sql("LOCK TABLE heads, events IN ACCESS EXCLUSIVE MODE")
        except DBAPIError:
            trial.rollback()
            if not left:
                raise
        else:
            trial.commit()
            return
        clock.sleep(random.uniform(0.1, _LONGEST_PAUSE))  # noqa: S311 - a pause


def _finds(connection: Connection, query: str, name: str, selection: Selection) -> bool:
    values = {"through_id": selection.through_id}
    if ":before_ms" in query:
        values["before_ms"] = selection.before_ms
    return connection.execute(text(query.format(name=name)), values).first() is not None
