"""What is in a database of either kind: its schema, and keys that are about to expire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import func, inspect, literal, select

from tracker.collector import schema as schemas
from tracker.collector.dates import date_text
from tracker.collector.doctor.finding import Finding
from tracker.collector.key_tables import are_valid
from tracker.collector.partitioning import catalog, layout
from tracker.collector.rollups.position import CONVERSATIONS, SUMS, position
from tracker.collector.rollups.tables import rolled
from tracker.collector.tables import api_keys, events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_NEVER = 2**63 - 1
_SOON_MS = 14 * 86_400_000
_SHOWN = 3
_MANY_BEHIND = 50_000
"""From so many on, a client's figures are read from its events."""
_MONTHS = 1
"""How many months after the present one are looked at."""

_INVALID = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND pg_table_is_visible(indrelid)
"""


def schema(connection: Connection) -> Iterator[Finding]:
    """Check that all tables, columns and indexes of this version are there."""
    if not inspect(connection).has_table(api_keys.name):
        yield Finding(
            "schema",
            "problem",
            "it is empty: no collector has made its tables here",
            "see whether it is the right database; `tracker-collector serve` makes them when it"
            " starts, and so does `tracker-collector migrate`",
        )
        return
    lacking = schemas.lacking(connection)
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        yield Finding(
            "schema",
            "problem",
            f"it is of a former version: {', '.join(lacking[:_SHOWN])}{more} missing",
            "start a collector of this version",
        )
        return
    if connection.dialect.name == "postgresql":
        invalid = connection.exec_driver_sql(_INVALID).scalars().all()
        if invalid:
            yield Finding(
                "schema",
                "problem",
                f"indexes that were not finished: {', '.join(invalid)}",
                "drop each, and run `tracker-collector migrate`",
            )
            return
        if catalog.until(connection) is not None:
            yield Finding(
                "schema",
                "warning",
                "a migration was begun and not finished",
                "run `tracker-collector migrate`",
            )
            return
        if not catalog.is_partitioned(connection):
            yield Finding(
                "schema",
                "warning",
                "events are not divided by month",
                "run `tracker-collector migrate`",
            )
            return
    yield Finding("schema", "ok", "it is that of this version")


def months(connection: Connection) -> Iterator[Finding]:
    """Check that there are partitions for the events of this month and the next one."""
    if not catalog.is_partitioned(connection):
        return
    lacking = layout.missing(connection, time.time_ns() // 1_000_000, _MONTHS)
    if lacking:
        names = ", ".join(month.table for month in lacking)
        yield Finding(
            "partitions",
            "warning",
            f"there is none for the events of a month to come: {names}",
            "run `tracker-collector partitions`, or let a collector run, which makes them daily",
        )
        return
    found = catalog.partitions(connection)
    other = sum(each.rows for each in found if each.is_other)
    more = f"; about {other:,} events have an id of no month" if other else ""
    yield Finding("partitions", "ok", f"there are {len(found)}, with those of next month{more}")


def rolling(connection: Connection) -> Iterator[Finding]:
    """Check that roll-ups follow the events."""
    if not inspect(connection).has_table(rolled.name):
        return
    newest = connection.execute(select(func.max(events.c.id))).scalar() or 0
    behind = newest - min(position(connection, name) or 0 for name in (SUMS, CONVERSATIONS))
    if behind <= _MANY_BEHIND:
        yield Finding("roll-ups", "ok", f"at most {behind:,} events wait to be rolled up")
        return
    yield Finding(
        "roll-ups",
        "warning",
        f"about {behind:,} events wait to be rolled up; the events are read themselves so far",
        "let a collector or `tracker-collector roll` run, and see what it logs",
    )


def expiring_keys(connection: Connection) -> Iterator[Finding]:
    """Look for clients and operators whose last valid key expires soon."""
    if not inspect(connection).has_table(api_keys.name):
        return
    if not {"expires_at_ms", "operator"} <= {
        column["name"] for column in inspect(connection).get_columns(api_keys.name)
    }:
        return
    now = time.time_ns() // 1_000_000
    last = func.max(func.coalesce(api_keys.c.expires_at_ms, literal(_NEVER)))
    query = (
        select(api_keys.c.client_id, last.label("last"))
        .where(are_valid(now))
        .group_by(api_keys.c.client_id, api_keys.c.operator)
        .having(last < now + _SOON_MS)
        .order_by("last", api_keys.c.client_id)
    )
    found = connection.execute(query).all()
    if not found:
        yield Finding("keys", "ok", "nobody's last key expires within 14 days")
        return
    names = ", ".join(client_id or "(operator)" for client_id, _ in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    yield Finding(
        "keys",
        "warning",
        f"the last key expires within 14 days, from {date_text(found[0].last)} on: {names}{more}",
        "tracker-collector keys rotate",
    )
