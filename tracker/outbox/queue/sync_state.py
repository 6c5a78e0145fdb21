"""The state of uploading, as stored in the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


FORKED = "forked"
"""The warning that two copies of the outbox have sent."""
ROLLED_BACK = "rolled_back"
"""The warning that the receiver has later events than the outbox ever got to."""

_WARNINGS = {
    FORKED: "two copies of this outbox have sent, or it was set back and went on: the server has "
    "different events under the same seq",
    ROLLED_BACK: "the server has later events of this outbox than the outbox itself: an older copy "
    "was put in its place, its newest events were cut off, or another copy has sent",
}


@dataclass(frozen=True)
class SyncState:
    """The state of uploading, for ``tracker-sync status``. Times are Unix milliseconds.

    `warning` is what the newest receipt warned of, in one word, or None.
    """

    settled_through: int = 0
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    next_attempt_ms: int | None = None
    paused_because: str | None = None
    warning: str | None = None
    flush_requests: int = field(default=0, compare=False)


def read_state(connection: Connection) -> SyncState:
    """Return the state of uploading."""
    row = connection.exec_driver_sql(
        "SELECT settled_through, last_success_ms, last_error, last_error_ms, next_attempt_ms, "
        "paused_because, warning, flush_requests FROM sync_state"
    ).one()
    return SyncState(*row)


def describe_warning(warning: str) -> str:
    """Return a receipt's warning as a sentence."""
    return _WARNINGS.get(warning, f"the server warns: {warning}")


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
