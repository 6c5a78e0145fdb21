"""PgBouncer between the collector and PostgreSQL, and whether LISTEN hears through it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from tracker import clock
from tracker.collector.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_HEAR_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


def pooler(connection: Connection) -> Iterator[Finding]:
    """Find out what is between: it gives out process ids of its own."""
    driver: Any = connection.connection.driver_connection
    process_id = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    between = process_id != driver.info.backend_pid
    hears = _hears(connection, driver)
    if hears:
        mode = "a pooler in session mode" if between else "nothing is"
        yield Finding("between", "ok", f"{mode} between; LISTEN hears")
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


def _hears(connection: Connection, driver: Any) -> bool:
    """Return whether a connection hears what another one says."""
    channel = f"tracker_doctor_{secrets.token_hex(8)}"
    heard: list[object] = []
    driver.add_notify_handler(heard.append)
    try:
        connection.exec_driver_sql(f"LISTEN {channel}")
        with connection.engine.connect() as other:
            other.exec_driver_sql(f"NOTIFY {channel}")
        deadline = clock.monotonic() + _HEAR_SECONDS
        while not heard and clock.monotonic() < deadline:
            clock.sleep(_PAUSE_SECONDS)
            # What has come is read together with an answer.
            connection.exec_driver_sql("SELECT 1")
        connection.exec_driver_sql(f"UNLISTEN {channel}")
    finally:
        driver.remove_notify_handler(heard.append)
    return bool(heard)
