"""`Check`: one line of the report of ``tracker-sync doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from tracker.errors import NotAnOutboxError, OutboxDamagedError, OutboxError

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"


@dataclass(frozen=True)
class Check:
    """One line of the report: name, status, message, and what to do if it is not OK."""

    name: str
    status: str
    message: str
    action: str = ""


def remedy(error: OutboxError) -> str:
    """Return what to do about an outbox that cannot be opened; a sound one has to stay in place."""
    if isinstance(error, NotAnOutboxError):
        return "give another path, or move the file away"
    if isinstance(error, OutboxDamagedError):
        return "keep a copy; then move the file away"
    return (
        "leave its files where they are; run this as the user who owns them, with this version or "
        "a newer one, and check the disk"
    )
