"""What keeps PostgreSQL from clearing up: vacuum, old transactions, replication slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.collector.doctor.finding import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_OLD_SECONDS = 600
_VERY_OLD_SECONDS = 3_600
_MUCH_WAL = 10 * 2**30
_OLD_AGE = 500_000_000
"""Transactions since the oldest row that is not frozen; at 2,000,000,000 the server stops."""
_VERY_OLD_AGE = 1_000_000_000

_VACUUM = """
SELECT current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on',
       (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database())
"""
_DEAD = """
SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables
WHERE schemaname = current_schema() AND n_dead_tup > 20000 AND n_dead_tup > 0.3 * n_live_tup
ORDER BY n_dead_tup DESC
"""
# A transaction that has no snapshot and has written nothing, as that of a forwarder which waits,
# holds nothing back.
_OLDEST = """
SELECT 'process ' || pid, coalesce(application_name, ''), coalesce(state, ''),
       extract(epoch FROM clock_timestamp() - xact_start) AS seconds
FROM pg_stat_activity
WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND xact_start IS NOT NULL
UNION ALL
SELECT 'prepared transaction ' || gid, '', 'prepared',
       extract(epoch FROM clock_timestamp() - prepared)
FROM pg_prepared_xacts
ORDER BY seconds DESC LIMIT 1
"""
_SLOTS = """
SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 2 DESC
"""


def vacuum(connection: Connection) -> Iterator[Finding]:
    """Check that old versions of rows are cleared up."""
    enabled, age = connection.exec_driver_sql(_VACUUM).one()
    if not enabled:
        yield Finding(
            "vacuum",
            "problem",
            "autovacuum or track_counts is off: the database grows, and stops at last",
            "set both to on",
        )
        return
    if age > _OLD_AGE:
        status: Status = "problem" if age > _VERY_OLD_AGE else "warning"
        yield Finding(
            "vacuum",
            status,
            f"{age:,} transactions are not frozen; at 2,000,000,000 the server stops",
            "find out what keeps autovacuum from its work, and VACUUM FREEZE",
        )
    dead = connection.exec_driver_sql(_DEAD).all()
    for name, count, living in dead:
        yield Finding(
            "vacuum",
            "warning",
            f"{name} has {count:,} dead rows beside {living:,}",
            f"VACUUM ANALYZE {name}, and let autovacuum begin earlier",
        )
    if age <= _OLD_AGE and not dead:
        yield Finding("vacuum", "ok", "autovacuum is on, and no table has many dead rows")


def oldest_transaction(
    connection: Connection, old: float = _OLD_SECONDS, very_old: float = _VERY_OLD_SECONDS
) -> Iterator[Finding]:
    """Check that no transaction keeps the rows of long ago, and readers from what is new.

    Args:
        connection: The database.
        old: Seconds from which on one is a warning.
        very_old: Seconds from which on one is a problem.
    """
    found = connection.exec_driver_sql(_OLDEST).first()
    if found is None or found.seconds < old:
        yield Finding("transactions", "ok", "none is old")
        return
    who, application, state, seconds = found
    named = f" ({application})" if application else ""
    yield Finding(
        "transactions",
        "problem" if seconds > very_old else "warning",
        f"{who}{named} has been {state or 'active'} for {seconds / 60:,.0f} min: no old row can be "
        "cleared up, and readers in order may wait",
        "end it, as with pg_terminate_backend or ROLLBACK PREPARED",
    )


def slots(connection: Connection) -> Iterator[Finding]:
    """Check that no replication slot keeps logs for a standby that is gone."""
    for name, kept in connection.exec_driver_sql(_SLOTS):
        yield Finding(
            "slots",
            "problem" if kept > _MUCH_WAL else "warning",
            f"nobody uses the slot {name}, which keeps {kept / 2**20:,.0f} MiB of logs",
            "bring its standby back, or drop it with pg_drop_replication_slot",
        )
