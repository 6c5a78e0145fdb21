"""Messages that contain a text, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.pages.view import Page
from tracker.queries.conversations import MOST_SECONDS
from tracker.queries.search import Matches, search

if TYPE_CHECKING:
    from tracker.pages.view import View

_PAGE = 30


def search_page(view: View) -> Page:
    """Return the page; nothing is looked for until a text is given."""
    text = view.text("text")
    found = Matches([], None)
    if text is not None:
        found = search(
            view.connection,
            text,
            view.filters(agent_id=view.text("agent"), user_id=view.text("user")),
            _PAGE,
            view.position("before"),
            view.source.events,
            seconds=MOST_SECONDS,
        )
    return Page("search.html", "Search", {
        "text": text,
        "rows": found.found,
        "next": found.next,
        "looked_back_to_ms": found.looked_back_to_ms,
        "is_first": view.text("before") is None,
    })  # fmt: skip
