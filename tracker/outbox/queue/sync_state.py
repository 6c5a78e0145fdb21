"""The state of uploading, as stored in the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


@dataclass(frozen=True)
class SyncState:
    """The state of uploading, for ``tracker-sync status``. Times are Unix milliseconds."""

    settled_through: int = 0
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    next_attempt_ms: int | None = None
    paused_because: str | None = None
    flush_requests: int = field(default=0, compare=False)


def read_state(connection: Connection) -> SyncState:
    """Return the state of uploading."""
    row = connection.exec_driver_sql(
        "SELECT settled_through, last_success_ms, last_error, last_error_ms, next_attempt_ms, "
        "paused_because, flush_requests FROM sync_state"
    ).one()
    return SyncState(*row)


def write_state(**columns: Any) -> Callable[[Transaction], None]:
    """Return the job that stores the given columns of `sync_state`."""
    assignments = ", ".join(f"{name} = ?" for name in columns)

    def job(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(
            f"UPDATE sync_state SET {assignments}",  # noqa: S608 - names of our own columns
            tuple(columns.values()),
        )

    return job


def request_flush(transaction: Transaction) -> None:
    """Ask the uploading process, whichever it is, to try now instead of waiting."""
    transaction.connection.exec_driver_sql(
        "UPDATE sync_state SET flush_requests = flush_requests + 1"
    )
