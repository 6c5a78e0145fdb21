"""PgBouncer between the collector and PostgreSQL, and whether LISTEN hears through it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from tracker import clock
from tracker.collector.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

_HEAR_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


def pooler(connection: Connection, listening: Engine) -> Iterator[Finding]:
    """Find out what is between: it gives out process ids of its own.

    Args:
        connection: The database as it is used.
        listening: The database as the collectors listen to it.
    """
    driver: Any = connection.connection.driver_connection
    process_id = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    between = process_id != driver.info.backend_pid
    if _hears(connection, listening):
        what = "a pooler is" if between else "nothing is"
        yield Finding("between", "ok", f"{what} between; LISTEN hears")
    elif between:
        yield Finding(
            "between",
            "warning",
            "a pooler in transaction mode is between; LISTEN does not hear, so each request looks "
            "its API key up",
            "give `serve` --direct-database, the URL of the server itself",
        )
    else:
        yield Finding("between", "warning", "LISTEN does not hear, and it is not known why")


def _hears(connection: Connection, listening: Engine) -> bool:
    """Return whether one that listens hears what is said on a connection."""
    channel = f"tracker_doctor_{secrets.token_hex(8)}"
    heard: list[object] = []
    with listening.connect() as other:
        driver: Any = other.connection.driver_connection
        driver.add_notify_handler(heard.append)
        other.exec_driver_sql(f"LISTEN {channel}")
        connection.exec_driver_sql(f"NOTIFY {channel}")
        deadline = clock.monotonic() + _HEAR_SECONDS
        while not heard and clock.monotonic() < deadline:
            clock.sleep(_PAUSE_SECONDS)
            # What has come is read together with an answer.
            other.exec_driver_sql("SELECT 1")
        other.exec_driver_sql(f"UNLISTEN {channel}")
    return bool(heard)
