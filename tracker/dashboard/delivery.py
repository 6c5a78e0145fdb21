"""The page on delivery: the account, the uploader, dead letters, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.dashboard.outbox_source import outbox_of
from tracker.outbox import browse, damaged_sets
from tracker.outbox import status as outbox_status
from tracker.pages.view import Page

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.pages.view import View

_MOST_DEAD, _MOST_WAITING = 50, 20


def delivery(view: View) -> Page:
    """Return the page."""
    source = outbox_of(view)
    lead = source.lead(view.connection).values
    return Page(
        "delivery.html",
        "Delivery",
        {
            "lead": lead,
            "dead": _newest(view, browse.DEAD, _MOST_DEAD),
            "waiting": _newest(view, browse.PENDING, _MOST_WAITING),
            "files": _files(source.path),
            "damaged": damaged_sets(source.path) if source.path.parent.exists() else [],
            "command": source.command,
            "outbox": source,
        },
    )


def _newest(view: View, state: str, most: int) -> list[Any]:
    found = list(browse.select(view.connection, browse.EVERY.in_state(state), most))
    return found[::-1]


def _files(path: Path) -> dict[str, int]:
    try:
        return outbox_status.file_sizes(path)
    except OSError:
        return {}
