"""Divides `events` by the time of event ids, within the caller's transaction, under short locks.

The table becomes ``PARTITION BY RANGE (event_id)``: a UUIDv7 begins with its time, and so
``(client_id, event_id)`` can be unique over all partitions. What was stored before stays where it
is: the former table is the first partition. It has no primary key, which would have to include
`event_id`; each partition has an index on `id`. The sequence makes that unique: a constraint would
keep the table from being spread over servers by client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.collector import tables
from tracker.collector.partitioning.catalog import (
    EARLIER,
    OTHER,
    UNTIL,
    partitions,
)
from tracker.collector.partitioning.months import Month, months_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

AHEAD = 3
"""Number of months after the present one that have a partition."""
LOCK_SECONDS = 1
"""How long to wait for a lock: everybody who comes after waits as long."""
_MOST_MOVED = 50_000
_INDEXES = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = 'events'::regclass
"""
_OWNER = """
SELECT quote_ident(pg_get_userbyid(relowner)),
       pg_get_serial_sequence('events', 'id')
FROM pg_class WHERE oid = 'events'::regclass
"""
_RIGHTS = """
SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, 'events',
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_class CROSS JOIN aclexplode(relacl) WHERE oid = 'events'::regclass
"""


class TooManyError(Exception):
    """A partition cannot be made: more events than can be moved are elsewhere already."""


def lock(connection: Connection, mode: str) -> None:
    """Lock `events` until the end of the transaction; fail if that takes longer than a second."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    connection.exec_driver_sql(f"LOCK TABLE events IN {mode} MODE")


def divide_new(connection: Connection, now_ms: int) -> None:
    """Divide the table of a new database, from the present month on."""
    month = Month.of(now_ms)
    _add_other(connection)
    divide(connection, month.lower)
    for each in _months(now_ms, AHEAD):
        add(connection, each)


def fence(connection: Connection, upper: str) -> None:
    """Keep all new rows of the table below an id, in preparation of `divide`.

    Those that are above it can then move, one by one, to the table that is to be the partition of
    all others: it inherits from `events` until then, so that every query finds them in either.
    """
    _become_owner(connection)
    _add_other(connection)
    connection.exec_driver_sql(f"ALTER TABLE {OTHER} INHERIT events")
    connection.exec_driver_sql(
        f"ALTER TABLE events ADD CONSTRAINT {UNTIL} CHECK (event_id < '{upper}') NO INHERIT"
        " NOT VALID"
    )


def divide(connection: Connection, upper: str) -> None:
    """Make the table the first partition of a new one of its name.

    Args:
        connection: The transaction; nobody else uses the table.
        upper: What all ids in it are below. If a valid constraint says so, no row is read.
    """
    sequence = _become_owner(connection)
    rights = list(connection.exec_driver_sql(_RIGHTS).scalars())
    for index in list(connection.exec_driver_sql(_INDEXES).scalars()):
        _do(connection, f'ALTER INDEX "{index}" RENAME TO "earlier_{index}"')
    _do(connection, f"ALTER TABLE events RENAME TO {EARLIER}")
    _do(
        connection,
        f"CREATE TABLE events (LIKE {EARLIER} INCLUDING DEFAULTS) PARTITION BY RANGE (event_id)",
    )
    if sequence is not None:  # or it would go with the partition
        _do(connection, f"ALTER SEQUENCE {sequence} OWNED BY events.id")
    _do(
        connection,
        "ALTER TABLE events ADD CONSTRAINT uq_events_event_id UNIQUE (client_id, event_id)",
    )
    for each in tables.events.indexes:
        each.create(connection)
    for right in rights:
        _do(connection, right)
    bounds = f"FOR VALUES FROM (MINVALUE) TO ('{upper}')"
    _do(connection, f"ALTER TABLE events ATTACH PARTITION {EARLIER} {bounds}")
    _do(connection, f"ALTER TABLE {EARLIER} DROP CONSTRAINT IF EXISTS {UNTIL}")
    _do(connection, f"ALTER TABLE events ATTACH PARTITION {OTHER} DEFAULT")


def missing(connection: Connection, now_ms: int, ahead: int = AHEAD) -> list[Month]:
    """Return the months from now on that have no partition and could get one."""
    taken = [(each.lower or "", each.upper or "~") for each in partitions(connection)
             if not each.is_other]  # fmt: skip
    return [
        month
        for month in _months(now_ms, ahead)
        if all(upper <= month.lower or month.upper <= lower for lower, upper in taken)
    ]


def add(connection: Connection, month: Month) -> int:
    """Make the partition of a month; return how many events moved there, which had none so far.

    The caller has locked `events` against all others: what moves must not be looked for meanwhile,
    and a batch that has read `events_other` must not wait for its turn to write.

    Raises:
        TooManyError: if those are more than 50,000.
    """
    _become_owner(connection)
    bounds = f"event_id >= '{month.lower}' AND event_id < '{month.upper}'"
    _do(connection, f"CREATE TABLE {month.table} (LIKE events INCLUDING DEFAULTS)")
    _do(connection, f"CREATE INDEX {month.table}_id ON {month.table} (id)")
    most = f"SELECT 1 FROM {OTHER} WHERE {bounds} LIMIT {_MOST_MOVED + 1}"  # noqa: S608 - our own names
    count = f"SELECT count(*) FROM ({most}) AS found"  # noqa: S608
    if connection.exec_driver_sql(count).scalar_one() > _MOST_MOVED:
        raise TooManyError(
            f"more than {_MOST_MOVED:,} events of {month.year}-{month.number:02} are in {OTHER}:"
            " too many to be moved to a partition of their own, so they stay there"
        )
    moved = move(connection, OTHER, month.table, bounds)
    ends = f"FOR VALUES FROM ('{month.lower}') TO ('{month.upper}')"
    _do(connection, f"ALTER TABLE events ATTACH PARTITION {month.table} {ends}")
    return moved


def move(connection: Connection, source: str, target: str, condition: str) -> int:
    """Move the rows of one table for which a condition holds to another; return their number."""
    return connection.exec_driver_sql(
        f"WITH moved AS (DELETE FROM ONLY {source} WHERE {condition} RETURNING *)"  # noqa: S608 - our own names
        f" INSERT INTO {target} SELECT * FROM moved"
    ).rowcount


def _months(now_ms: int, ahead: int) -> Iterable[Month]:
    first = last = Month.of(now_ms)
    for _ in range(ahead):
        last = last.next
    return months_from(first, last)


def _add_other(connection: Connection) -> None:
    _do(
        connection,
        f"CREATE TABLE {OTHER} (LIKE events INCLUDING DEFAULTS, UNIQUE (client_id, event_id))",
    )
    _do(connection, f"CREATE INDEX {OTHER}_id ON {OTHER} (id)")


def _become_owner(connection: Connection) -> Any:
    """Act as the owner of `events`, to whom all that is made shall belong; return its sequence."""
    owner, sequence = connection.exec_driver_sql(_OWNER).one()
    _do(connection, f"SET LOCAL ROLE {owner}")
    return sequence


def _do(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)
