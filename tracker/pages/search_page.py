"""Messages that contain a text, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.pages.view import Page
from tracker.queries.conversations import MOST_SECONDS
from tracker.queries.search import Matches, search

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.pages.view import View

_PAGE = 30


def search_page(view: View) -> Page:
    """Return the page; nothing is looked for until a text is given."""
    text, before = view.text("text"), view.position("before")
    found: Matches | None = Matches([], None)
    if text is not None:
        whose = (view.text("agent"), view.text("user"))
        found = view.part("search", _search(view, text, before), text, before, *whose).value
    return Page("search.html", "Search", {
        "text": text,
        "ready": found is not None,
        "rows": [] if found is None else found.found,
        "next": None if found is None else found.next,
        "looked_back_to_ms": None if found is None else found.looked_back_to_ms,
        "is_first": before is None,
    })  # fmt: skip


def _search(view: View, text: str, before: int | None) -> Callable[[Connection], Matches]:
    wanted = view.filters(agent_id=view.text("agent"), user_id=view.text("user"))
    events = view.source.events
    return lambda connection: search(
        connection, text, wanted, _PAGE, before, events, seconds=MOST_SECONDS
    )
