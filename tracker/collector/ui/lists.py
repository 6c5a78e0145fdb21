"""What was refused, and what was erased, of one client: the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.collector import rejections as refused
from tracker.collector.erasures import newest_erasures
from tracker.collector.ui.client_source import client_of
from tracker.pages.view import Page

if TYPE_CHECKING:
    from tracker.pages.view import View

_PAGE = 50
_MOST_CHARACTERS = 2_000_000


def rejections(view: View) -> Page:
    """Return the page of refused events that were not accepted since."""
    rows, following = refused.newest(
        view.connection, client_of(view), _PAGE, view.position("before")
    )
    return Page("rejections.html", "Rejections", {
        "rows": rows,
        "next": following,
        "is_first": view.text("before") is None,
    })  # fmt: skip


def erasures(view: View) -> Page:
    """Return the page of what was erased at somebody's request."""
    rows, following = newest_erasures(
        view.connection, _PAGE, view.position("before"), _MOST_CHARACTERS, view.source.events
    )
    return Page("erasures.html", "Erasures", {
        "rows": rows,
        "next": following,
        "is_first": view.text("before") is None,
    })  # fmt: skip
