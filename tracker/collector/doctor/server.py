"""A PostgreSQL server: its version, durability, clock, connections and disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tracker import clock as clocks
from tracker.collector.doctor.finding import Finding
from tracker.collector.doctor.space import space
from tracker.collector.replication import Replication

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.collector.replication import Durability

_OLDEST = 12
_CLOCK_WARNING_SECONDS = 2.0
_CLOCK_PROBLEM_SECONDS = 60.0
_NEEDED = 30
"""How many connections one more collector opens, with some to spare."""

_VERSION = "SELECT current_setting('server_version_num')::int / 10000, version()"
_STANDBYS = """
SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(*) FROM pg_stat_replication
"""
_CONNECTIONS = """
SELECT current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       (SELECT datconnlimit - numbackends FROM pg_database JOIN pg_stat_database USING (datname)
        WHERE datname = current_database() AND datconnlimit >= 0),
       (SELECT rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname)
        FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0),
       current_setting('max_connections')
"""
_SIZE = "SELECT pg_size_pretty(pg_database_size(current_database()))"
_IS_HERE = "SELECT inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr()"
_FOLDER = "SELECT current_setting('data_directory')"


def version(connection: Connection) -> Iterator[Finding]:
    """Check version and encoding; a server of another encoding gives no connection."""
    major, text = connection.exec_driver_sql(_VERSION).one()
    yield Finding("encoding", "ok", "UTF8")
    shown = " ".join(text.split()[:2])
    if major < _OLDEST:
        action = f"upgrade it to {_OLDEST} or later, at best to a version that is still maintained"
        yield Finding("version", "problem", f"{shown} is too old", action)
    else:
        yield Finding("version", "ok", shown)


def durability(connection: Connection, required: Durability | None) -> Iterator[Finding]:
    """Check that a commit is durable as required.

    Raises:
        ConfigurationError: if the server is not configured for it.
        NotReplicatedError: if it is, and no standby is connected.
    """
    replication = Replication(required)
    warning = replication.settle(connection)
    replication.begin(connection, "doctor")
    if warning is not None:
        yield Finding("durability", "warning", warning)
        return
    if replication.durability == "local":
        yield Finding("durability", "ok", "local: on the disk of this server")
        return
    synchronous, connected = connection.exec_driver_sql(_STANDBYS).one()
    yield Finding(
        "durability",
        "ok",
        f"replicated: {synchronous} of {connected} connected standbys are synchronous",
    )


def clock(connection: Connection) -> Iterator[Finding]:
    """Compare the clock of the server with that of this machine."""
    before = clocks.wall()
    there = float(
        connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one()
    )
    after = clocks.wall()
    apart = max(before - there, there - after, 0.0)
    if apart <= _CLOCK_WARNING_SECONDS:
        yield Finding("clock", "ok", "that of the server and of this machine agree")
        return
    status = "problem" if apart > _CLOCK_PROBLEM_SECONDS else "warning"
    yield Finding(
        "clock",
        status,  # type: ignore[arg-type] # one of the two
        f"that of the server and of this machine are {apart:,.0f} s apart",
        "keep both in time with NTP: keys expire, and partitions are made, by these clocks",
    )


def connections(connection: Connection) -> Iterator[Finding]:
    """Check that another collector would get the connections that it opens."""
    *limits, most = connection.exec_driver_sql(_CONNECTIONS).one()
    left = max(0, min(int(limit) for limit in limits if limit is not None))
    if left >= _NEEDED:
        yield Finding("connections", "ok", f"{left} are left (max_connections is {most})")
        return
    yield Finding(
        "connections",
        "warning" if left else "problem",
        f"{left} are left, and a collector opens up to {_NEEDED} (max_connections is {most})",
        "raise max_connections or the limit of the role or database, or put PgBouncer in between",
    )


def disk(connection: Connection) -> Iterator[Finding]:
    """Check the room for the database, where the server is this machine."""
    size = connection.exec_driver_sql(_SIZE).scalar_one()
    if connection.exec_driver_sql(_IS_HERE).scalar_one():
        folder = Path(connection.exec_driver_sql(_FOLDER).scalar_one())
        try:
            yield space(f"the database takes {size}", shutil.disk_usage(folder))
        except OSError:  # it is in a container, or this user may not look
            pass
        else:
            return
    yield Finding(
        "disk", "ok", f"the database takes {size}; what is free there cannot be seen from here"
    )
