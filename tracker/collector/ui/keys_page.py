"""The API keys, for operators: never the keys themselves, and nothing here changes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from tracker.collector.keys import described
from tracker.collector.tables import api_keys
from tracker.pages.view import Page

if TYPE_CHECKING:
    from tracker.pages.view import View

_PAGE = 200


def keys(view: View) -> Page:
    """Return the page: the newest keys first."""
    before = view.position("before")
    query = select(api_keys).order_by(api_keys.c.id.desc()).limit(_PAGE + 1)
    if before is not None:
        query = query.where(api_keys.c.id < before)
    found = [described(row) for row in view.connection.execute(query).mappings()]
    return Page("api_keys.html", "API keys", {
        "rows": found[:_PAGE],
        "next": found[_PAGE - 1].id if len(found) > _PAGE else None,
        "is_first": before is None,
    })  # fmt: skip
