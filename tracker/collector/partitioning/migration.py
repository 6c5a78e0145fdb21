"""Brings a database to the present schema while others use it, in steps that can be repeated.

Each step looks at the database for what is left to do, so that it goes on wherever an earlier run
has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import clock
from tracker.collector.key_trigger import add_trigger, is_missing
from tracker.collector.partitioning import catalog, layout
from tracker.collector.partitioning.ahead import make_ahead, refresh_statistics
from tracker.collector.partitioning.briefly import briefly
from tracker.collector.partitioning.indexes import add_concurrently
from tracker.collector.partitioning.months import Month
from tracker.collector.schema import bring_up_to_date, lacking, missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from sqlalchemy import Connection

    from tracker.collector.database import Database

    Say: TypeAlias = Callable[[str], None]

ROOM_MS = 28 * 86_400_000
"""How far in the future an event's id may be for its event to stay where it is: while a migration
is under way, one that is later is refused, and sent again."""
MOST_OUTSIDE = 100_000
_MOVED_TOGETHER = 1_000
_SCAN_SECONDS = 24 * 3_600.0


def plan(database: Database) -> list[str]:
    """Return what `run` would do, as sentences; nothing is changed.

    Raises:
        StorageError: if the database could not be read.
    """
    with database.reading(_SCAN_SECONDS) as connection:
        lacks = missing(connection)
        steps = [f"add the table {table.name}" for table in lacks.tables]
        steps += [f"add the column {each.table.name}.{each.name}" for each in lacks.columns]
        steps += [f"make the index {index.name}" for index in lacks.indexes]
        if database.dialect != "postgresql" or "events" in [each.name for each in lacks.tables]:
            return steps
        if "api_keys" not in [each.name for each in lacks.tables] and is_missing(connection):
            steps.append("make the trigger that tells of changes of keys")
        if catalog.is_partitioned(connection):
            months = layout.missing(connection, _now_ms())
            return steps + [f"make the partition {month.table}" for month in months]
        upper = _upper(connection)
        outside = len(_outside(connection, upper))
    if outside > MOST_OUTSIDE:
        return steps
    divide = (
        f"divide events by time: what is there, below {upper}, becomes the partition"
        f" {catalog.EARLIER}, and {_events(outside)} beyond it move to {catalog.OTHER}"
    )
    return [*steps, divide]


def run(database: Database, say: Say) -> None:
    """Do what `plan` says, and say each step when it is done.

    Raises:
        StorageError: if the database failed, or others kept a table locked for ten minutes.
    """
    if database.dialect != "postgresql":
        _add_all(database, say)
        return
    _add_tables(database, say)
    with database.reading() as connection:
        indexes = missing(connection).indexes
        has_trigger = not is_missing(connection)
    if not has_trigger:
        with database.writing("schema") as connection:
            add_trigger(connection)
        say("made the trigger that tells of changes of keys")
    for index in indexes:
        add_concurrently(database, index)
        say(f"made the index {index.name}")
    with database.reading() as connection:
        is_divided = catalog.is_partitioned(connection)
    if not is_divided:
        _divide(database, say)
    for made in make_ahead(database, _now_ms()):
        say(f"made the partition {made.name}, {_events(made.moved)} moved there")
    refresh_statistics(database)


def _add_all(database: Database, say: Say) -> None:
    """Add all that an SQLite database lacks, none of which takes long."""
    with database.reading() as connection:
        names = lacking(connection)
    with database.writing("schema") as connection:
        bring_up_to_date(connection)
    for name in names:
        say(f"added {name}")


def _add_tables(database: Database, say: Say) -> None:
    with database.reading() as connection:
        lacks = missing(connection)
    if not lacks.names():
        return
    if "events" in [table.name for table in lacks.tables]:
        with database.writing("schema") as connection:
            bring_up_to_date(connection)
    else:
        changed = "events" in [str(column.table) for column in lacks.columns]
        briefly(database, "ACCESS EXCLUSIVE" if changed else "ACCESS SHARE", bring_up_to_date)
    for name in lacks.names():
        say(f"added {name}")


def _divide(database: Database, say: Say) -> None:
    with database.reading(_SCAN_SECONDS) as connection:
        begun = catalog.until(connection)
        upper = _upper(connection)
        outside = [] if begun else _outside(connection, upper)
    if len(outside) > MOST_OUTSIDE:
        say(
            f"events stays one table: more than {MOST_OUTSIDE:,} ids are not UUIDv7, or of a clock"
            f" that is ahead, and those are not moved"
        )
        return
    if begun is None:
        briefly(database, "ACCESS EXCLUSIVE", lambda connection: layout.fence(connection, upper))
        say(f"keeps new events below {upper}")
    if begun is None or not begun.is_valid:
        _move_outside(database, upper, say)
        with database.administering() as connection:
            connection.exec_driver_sql(f"ALTER TABLE events VALIDATE CONSTRAINT {catalog.UNTIL}")
        say("checked that all events are below it")
    briefly(database, "ACCESS EXCLUSIVE", lambda connection: _swap(connection, upper))
    say(f"divided events: what was there is the partition {catalog.EARLIER}")


def _swap(connection: Connection, upper: str) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {catalog.OTHER} NO INHERIT events")
    layout.divide(connection, upper)


def _move_outside(database: Database, upper: str, say: Say) -> None:
    with database.reading(_SCAN_SECONDS) as connection:
        outside = _outside(connection, upper)
    for start in range(0, len(outside), _MOVED_TOGETHER):
        some = ", ".join(map(str, outside[start : start + _MOVED_TOGETHER]))

        def work(connection: Connection, some: str = some) -> int:
            return layout.move(connection, "events", catalog.OTHER, f"id IN ({some})")

        # Nobody writes meanwhile: an erasure must find each event in one place or the other.
        briefly(database, "SHARE ROW EXCLUSIVE", work)
    if outside:
        say(f"moved {_events(len(outside))} to {catalog.OTHER}")


def _upper(connection: Connection) -> str:
    begun = catalog.until(connection)
    return Month.of(_now_ms() + ROOM_MS).upper if begun is None else begun.event_id


def _outside(connection: Connection, upper: str) -> list[int]:
    query = f"SELECT id FROM ONLY events WHERE event_id >= %s LIMIT {MOST_OUTSIDE + 1}"  # noqa: S608 - a number
    return list(connection.exec_driver_sql(query, (upper,)).scalars())


def _now_ms() -> int:
    return int(clock.wall() * 1000)


def _events(number: int) -> str:
    return f"{number:,} event{'' if number == 1 else 's'}"
