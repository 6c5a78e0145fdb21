"""The list of conversations: a page of its own, and the newest ones on the overview."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.pages.view import Page
from tracker.queries.conversations import STATUSES, conversation_page

if TYPE_CHECKING:
    from tracker.pages.view import View
    from tracker.queries.conversations import Conversation

_PAGE = 30


@dataclass(frozen=True)
class Row:
    """A conversation of a list.

    Attributes:
        conversation: The conversation.
        said: What the user said first; None if that is not known.
    """

    conversation: Conversation
    said: str | None


def conversations(view: View) -> Page:
    """Return the list of conversations."""
    status = view.one_of("status", STATUSES, "")
    found, following = rows(
        view, limit=_PAGE, status=status or None, before=view.position("before")
    )
    return Page(
        "conversations.html",
        "Conversations",
        {
            "rows": found,
            "next": following,
            "status": status,
            "statuses": STATUSES,
            "agent": view.text("agent"),
            "user": view.text("user"),
            "is_first": view.text("before") is None,
        },
    )


def rows(
    view: View, *, limit: int, status: str | None = None, before: int | None = None
) -> tuple[list[Row], int | None]:
    """Return a page of conversations that match the query, and the start of the next one."""
    wanted = view.filters(agent_id=view.text("agent"), user_id=view.text("user"))
    events = view.source.events
    page = conversation_page(view.connection, wanted, status, limit, before, events)
    return [Row(each, None) for each in page.conversations], page.next
