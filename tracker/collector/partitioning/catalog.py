"""What PostgreSQL knows of the table `events`: whether it is divided, and into what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Connection

OTHER = "events_other"
"""The partition of all ids for which there is no other one."""
EARLIER = "events_earlier"
"""The partition of all ids from before there were months."""
UNTIL = "events_until"
"""The constraint that keeps the table in the bounds of the partition which it is to become."""
BIG_BYTES = 64 * 2**20
"""Size of `events` from which on nothing is done to it at once that takes as long as it is big."""

_KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass('events')"
_BYTES = """
SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class
WHERE oid = 'events'::regclass
    OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass)
"""
_PARTITIONS = """
SELECT child.relname, pg_get_expr(child.relpartbound, child.oid),
       greatest(child.reltuples, 0)::bigint, pg_total_relation_size(child.oid)
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'events'::regclass AND child.relispartition
"""
_UNTIL = """
SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint
WHERE conrelid = 'events'::regclass AND conname = %s
"""
_BOUND = re.compile(r"\b(FROM|TO) \((?:'([^']*)'|MINVALUE|MAXVALUE)\)")
_ID = re.compile(r"'([0-9a-f-]{36})'")


class Partition(NamedTuple):
    """A partition of `events`.

    Attributes:
        name: The name of its table.
        lower: The lowest event id in it; None if there is no lower bound.
        upper: The first event id above it; None if there is no upper bound.
        is_other: Whether it has all ids that no other partition is for; it has no bounds then.
        rows: About how many events are in it; 0 until PostgreSQL has counted them.
        bytes: Its size, indexes included.
    """

    name: str
    lower: str | None
    upper: str | None
    is_other: bool
    rows: int
    bytes: int


class Until(NamedTuple):
    """What a migration that is under way keeps the table below, and whether all rows are there."""

    event_id: str
    is_valid: bool


def is_partitioned(connection: Connection) -> bool:
    """Return whether the table is divided; False if there is none."""
    return connection.exec_driver_sql(_KIND).scalar() == "p"


def is_big(connection: Connection) -> bool:
    """Return whether what reads the whole table takes long."""
    return int(connection.exec_driver_sql(_BYTES).scalar_one()) > BIG_BYTES


def partitions(connection: Connection) -> list[Partition]:
    """Return all partitions in the order of their bounds, the one without bounds last."""
    found = []
    for name, bound, rows, size in connection.exec_driver_sql(_PARTITIONS):
        ends = dict(_BOUND.findall(bound))
        lower, upper = (ends.get(end) or None for end in ("FROM", "TO"))
        found.append(Partition(name, lower, upper, bound == "DEFAULT", rows, size))
    return sorted(found, key=lambda each: (each.is_other, each.lower or "", each.upper or ""))


def until(connection: Connection) -> Until | None:
    """Return what a migration has begun with; None if none is under way."""
    row = connection.exec_driver_sql(_UNTIL, (UNTIL,)).first()
    found = None if row is None else _ID.search(row[0])
    return None if row is None or found is None else Until(found[1], row[1])
