"""Spans of OpenTelemetry that were under way when their process died: each gets an end.

A process that stores the starts of its spans holds the lock of a file ``<outbox>.run-<uuid>`` as
long as it lives; the starts name the UUID. The file contains the seq that the first one follows.
Once the lock is free, what has no end is ended at the time of the last that is known of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical, log
from tracker.errors import OutboxError
from tracker.events import OTEL_SPAN, OTEL_SPAN_STARTED, make_event
from tracker.outbox.files import paths
from tracker.outbox.files.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.events import Event

MESSAGE = "process ended before the span did"
INTERRUPTED = "tracker.span.interrupted"
"""The attribute that is true on a span that was ended so."""

_ROWS = """
SELECT type, agent_id, session_id, user_id, data, context, trace FROM events
WHERE seq > ? AND type IN (?, ?) ORDER BY seq
"""


class _Row(NamedTuple):
    type: str
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: str
    context: str | None
    trace: str | None


def leftover(path: Path) -> list[FileLock]:
    """Return the locks of runs whose processes are gone; they are held now."""
    found = []
    for each in sorted(paths.run_locks(path)):
        lock = FileLock(each, like=path)
        try:
            if lock.try_acquire() and not lock.is_replaced():
                found.append(lock)
                continue
        except OutboxError as error:
            log.info("the run %s cannot be examined: %s", each, error)
        lock.close()
    return found


def ends(connection: Connection, lock: FileLock, max_bytes: int) -> list[Event]:
    """Return an end for each span of a run that has none."""
    run = lock.path.name.rpartition(".run-")[2]
    rows = connection.exec_driver_sql(_ROWS, (_mark(lock.path), OTEL_SPAN_STARTED, OTEL_SPAN))
    open_, last = _under_way((_Row(*row) for row in rows), run)
    return [_end(row, data, max(last, _ns(data["start"])), max_bytes) for row, data in open_]


def finish(lock: FileLock) -> None:
    """Delete the file of a run that has nothing under way any more."""
    lock.path.unlink(missing_ok=True)
    lock.close()


def _mark(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):  # the disk was full, say
        return 0


def _under_way(rows: Iterable[_Row], run: str) -> tuple[list[tuple[_Row, dict[str, Any]]], int]:
    """Return the starts without an end, and the last time of the run in nanoseconds."""
    open_: dict[str | None, tuple[_Row, dict[str, Any]]] = {}
    last = 0
    for row in rows:
        if row.type == OTEL_SPAN and row.trace not in open_:
            continue
        data = _data(row)
        if row.type == OTEL_SPAN:
            last = max(last, _ns(data.get("end")))
            del open_[row.trace]
        elif data.get("run") == run:
            last = max(last, _ns(data.get("start")))
            open_[row.trace] = row, data
    return list(open_.values()), last


def _end(row: _Row, started: dict[str, Any], last: int, max_bytes: int) -> Event:
    data = {name: value for name, value in started.items() if name != "run"}
    data["end"] = str(last)
    data["status"] = {"code": "error", "message": MESSAGE}
    data["attributes"] = {**data.get("attributes", {}), INTERRUPTED: True}
    return make_event(
        OTEL_SPAN,
        data,
        agent_id=row.agent_id,
        session_id=row.session_id,
        user_id=row.user_id,
        context=row.context,
        trace=row.trace,
        max_bytes=max_bytes + _ROOM,
    )


_ROOM = 1_024
"""What is added to a start, which may have used all the room there is."""


def _data(row: _Row) -> dict[str, Any]:
    try:
        found = canonical.decode(row.data)
    except ValueError:  # damaged; it is reported elsewhere
        return {}
    return found if isinstance(found, dict) else {}


def _ns(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0
