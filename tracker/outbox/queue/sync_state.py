"""The state of uploading, as stored in the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


FORKED = "forked"
"""The warning that two copies of the outbox have sent."""
ROLLED_BACK = "rolled_back"
"""The warning that the receiver has later events than the outbox ever got to."""

_WAITS, _HELD = "waits: ", "held: "
"""How `paused_because` begins where uploads wait by a setting, and nothing has failed: for the byte
rate, or for as long as the upload window is closed or `may_upload` says no."""
_NOW = 1 << 32
"""What a request to flush in spite of such a setting adds to `flush_requests`; any other adds 1."""

_WARNINGS = {
    FORKED: "two copies of this outbox have sent, or it was set back and went on: the server has "
    "different events under the same seq",
    ROLLED_BACK: "the server has later events of this outbox than the outbox itself: an older copy "
    "was put in its place, its newest events were cut off, or another copy has sent",
}


@dataclass(frozen=True)
class SyncState:
    """The state of uploading, for ``tracker-sync status``. Times are Unix milliseconds.

    `warning` is what the newest receipt warned of, in one word, or None. `paused_because` is a
    failure; `waits_because` is a setting that lets uploads wait; `is_held` says that `flush --now`
    would not wait for it.
    """

    settled_through: int = 0
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    next_attempt_ms: int | None = None
    paused_because: str | None = None
    warning: str | None = None
    flush_requests: int = field(default=0, compare=False)
    waits_because: str | None = None
    is_held: bool = False

    def flush_now_requested(self, before: int) -> bool:
        """Return True if, since `flush_requests` was `before`, one was not to obey the settings."""
        return self.flush_requests // _NOW != before // _NOW


def read_state(connection: Connection) -> SyncState:
    """Return the state of uploading."""
    row = connection.exec_driver_sql(
        "SELECT settled_through, last_success_ms, last_error, last_error_ms, next_attempt_ms, "
        "paused_because, warning, flush_requests FROM sync_state"
    ).one()
    state = SyncState(*row)
    because = state.paused_because
    if because in (None, state.last_error) or not because.startswith((_WAITS, _HELD)):
        return state  # what a failure says is stored as the last error too
    waits = because.partition(": ")[2]
    held = because.startswith(_HELD)
    return replace(state, paused_because=None, waits_because=waits, is_held=held)


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


def write_wait(because: str, until_ms: int | None, *, held: bool) -> Callable[[Transaction], None]:
    """Return the job that stores by which setting uploads wait, and until when."""
    begins = _HELD if held else _WAITS
    return write_state(paused_because=begins + because, next_attempt_ms=until_ms)


def request_flush(transaction: Transaction, *, now: bool = False) -> None:
    """Ask the uploading process, whichever it is, to try now instead of waiting.

    With `now`, what is pending at present is to be sent though a setting keeps it back.
    """
    transaction.connection.exec_driver_sql(
        "UPDATE sync_state SET flush_requests = flush_requests + ?", (_NOW if now else 1,)
    )
