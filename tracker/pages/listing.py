"""The list of conversations: a page of its own, and the newest ones on the overview."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tracker.pages.agents_page import Agents, agents_of
from tracker.pages.view import Page
from tracker.queries.conversations import STATUSES
from tracker.queries.filters import EVERYTHING
from tracker.queries.opening import FirstSaid, first_said

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.pages.view import View
    from tracker.queries.conversations import Conversation

_PAGE = 30
_MOST_CHOICES = 100
"""Of agents in a list. With more, nobody finds one in it, and it would outweigh the page."""


@dataclass(frozen=True)
class Row:
    """A conversation of a list.

    Attributes:
        conversation: The conversation.
        said: What the user said first; None if that is not known.
    """

    conversation: Conversation
    said: FirstSaid | None


class Listed(NamedTuple):
    """A page of conversations.

    Attributes:
        rows: The conversations, the one that began last first.
        next: The start of the next page; None if there is nothing left.
        looked_back_to_ms: How far back was looked, if it took too long to look further.
    """

    rows: list[Row]
    next: int | None
    looked_back_to_ms: int | None


def conversations(view: View) -> Page:
    """Return the list of conversations."""
    status, before = view.one_of("status", STATUSES, ""), view.position("before")
    agent, user = view.text("agent"), view.text("user")

    def read(connection: Connection) -> Listed:
        return listed(view, connection, limit=_PAGE, status=status or None, before=before)

    found: Listed | None
    if status or agent or user or view.filters() != EVERYTHING:
        found = view.part("conversations", read, status, before, agent, user).value
    else:  # the newest are found at once
        found = read(view.connection)
    return Page(
        "conversations.html",
        "Conversations",
        {
            "ready": found is not None,
            "rows": [] if found is None else found.rows,
            "next": None if found is None else found.next,
            "looked_back_to_ms": None if found is None else found.looked_back_to_ms,
            "agents": _choices(view.aside("agents", agents_of(view)), agent),
            "status": status,
            "statuses": STATUSES,
            "agent": agent,
            "user": user,
            "is_first": before is None,
        },
    )


def _choices(known: Agents | None, chosen: str | None) -> list[str]:
    """Return the agents to choose from, the chosen one among them; none if they are too many."""
    names = set() if known is None else {each.agent_id for each in known.states}
    if not names or len(names) > _MOST_CHOICES:
        return []
    return sorted(names if chosen is None else {*names, chosen})


def listed(
    view: View,
    connection: Connection,
    *,
    limit: int,
    status: str | None = None,
    before: int | None = None,
) -> Listed:
    """Return conversations that match the query; a long look ends early, and says so."""
    wanted = view.filters(agent_id=view.text("agent"), user_id=view.text("user"))
    page = view.source.reads.conversations(connection, wanted, status, limit, before)
    ids = [each.session_id for each in page.conversations]
    said = first_said(connection, ids, view.source.events)
    rows = [Row(each, said.get(each.session_id)) for each in page.conversations]
    return Listed(rows, page.next, page.looked_back_to_ms)
