"""A conversation as a script: who said what, what was called, and where each entry is now."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from starlette.exceptions import HTTPException

from tracker import canonical
from tracker.pages.view import Page
from tracker.pages.words import readable_json
from tracker.queries.conversations import Conversation, find_conversation, text
from tracker.queries.history import HistoryEntry, newest_entries
from tracker.queries.scores import Score, list_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker.pages.source import Delivery
    from tracker.pages.view import View

MOST_ENTRIES = 80
MOST_CHARACTERS = 24_000
"""Of a page, which has some 60 kB then; the entry that fills it is on it."""
MOST_OF_A_TEXT = 4_000
"""Characters of a message, of arguments or of a result; the page of its event has all."""
_JSON_ENTRIES, _JSON_CHARACTERS = 200, 2_000_000
FOLDED = 1_400
"""Texts with more characters are folded."""
_MOST_TRACES = 20
_MOST_ROWS = 2_000
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)(?:^```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Segment:
    """A part of a text: prose, or what stood between fences."""

    text: str
    is_code: bool = False


@dataclass(frozen=True)
class Entry:
    """An entry of the script.

    Attributes:
        entry: The message or call.
        segments: The parts of its text.
        prompt: The parts of what the user had said, if only a span tells.
        folded: Whether the text is folded at first.
        is_cut: Whether more was said or called than the page shows.
        delivery: Where the event is; None if that is not known.
        is_first_waiting: Whether it is the first that waits on this device.
    """

    entry: HistoryEntry
    segments: list[Segment]
    prompt: list[Segment]
    folded: bool
    is_cut: bool
    delivery: Delivery | None
    is_first_waiting: bool


def transcript(view: View) -> Page:
    """Return the page of a conversation.

    Raises:
        HTTPException: if it is not stored.
    """
    session_id = _id(view)
    whole = _found(view, session_id)
    before = view.position("before")
    history, following = newest_entries(
        view.connection, session_id, True, MOST_ENTRIES, before, MOST_CHARACTERS, view.source.events
    )
    states = view.source.deliveries(view.connection, session_id)
    waiting = sum(each.state == "pending" for each in states.values())
    scores = list_scores(view.connection, session_id, view.source.events, True, MOST_CHARACTERS)
    return Page(
        "transcript.html",
        "Conversation",
        {
            "c": whole,
            "entries": _entries(history[::-1], states),
            "earlier": following,
            "is_newest": before is None,
            "states": Counter(each.state for each in states.values()),
            "waiting": waiting,
            "all_wait": waiting == len(states),
            "scores": _of_whole(scores, history),
            "traces": _traces(view, session_id),
            "most": MOST_OF_A_TEXT,
        },
    )


def as_json(view: View) -> dict[str, Any]:
    """Return what the page of a conversation shows, for a script or a bug report.

    Raises:
        HTTPException: if it is not stored.
    """
    session_id = _id(view)
    whole = _found(view, session_id)
    history, following = newest_entries(
        view.connection, session_id, True, _JSON_ENTRIES, view.position("before"),
        _JSON_CHARACTERS, view.source.events,
    )  # fmt: skip
    return {**vars(whole), "history": [_entry_json(each) for each in history[::-1]],
            "next": following}  # fmt: skip


def _id(view: View) -> str:
    found = view.text("id")
    if found is None:
        raise HTTPException(400, "The address names no conversation.")
    return found


def _found(view: View, session_id: str) -> Conversation:
    whole = find_conversation(view.connection, session_id, view.source.events)
    if whole is None:
        raise HTTPException(
            404, f"There is no conversation {session_id} here. If it was delivered, it may have "
            "been pruned.",
        )  # fmt: skip
    return whole


def _entries(history: list[HistoryEntry], states: Mapping[int, Delivery]) -> list[Entry]:
    made, seen = [], False
    for each in history:
        delivery = states.get(each.seq)
        waits = delivery is not None and delivery.state == "pending"
        said, asked = each.content or "", each.prompt or ""
        made.append(
            Entry(
                each,
                segments(said[:MOST_OF_A_TEXT]),
                segments(asked[:MOST_OF_A_TEXT]),
                len(said) > FOLDED or (each.role == "system" and bool(said)),
                _is_cut(each),
                delivery,
                is_first_waiting=waits and not seen,
            )
        )
        seen = seen or waits
    return made


def _is_cut(entry: HistoryEntry) -> bool:
    call = entry.tool_call
    parts = () if call is None else (call.arguments, call.result, call.error)
    texts = [readable_json(each) for each in (entry.content, entry.prompt, *parts) if each]
    return any(len(each) > MOST_OF_A_TEXT for each in texts)


def segments(said: str) -> list[Segment]:
    """Return a text as prose and code: nothing but fences is taken for anything."""
    found, end = [], 0
    for fence in _FENCE.finditer(said):
        found += [Segment(said[end : fence.start()].strip("\n")), Segment(fence[1], is_code=True)]
        end = fence.end()
    found.append(Segment(said[end:].strip("\n") if found else said))
    return [each for each in found if each.text]


def _of_whole(scores: tuple[Score, ...], history: list[HistoryEntry]) -> list[Score]:
    """Return the scores that stand beside no entry of this page."""
    shown = {score.event_id for entry in history for score in entry.scores}
    return [score for score in scores if score.event_id not in shown][-MOST_ENTRIES:]


def _traces(view: View, session_id: str) -> list[str]:
    """Return the ids of the conversation's traces, in order."""
    column = view.source.events.c
    rows = view.connection.execute(
        select(column.trace)
        .where(column.session_id == session_id, column.trace.is_not(None))
        .order_by(column.position)
        .limit(_MOST_ROWS)
    ).scalars()
    found = dict.fromkeys(_trace_id(row) for row in rows)
    return [each for each in found if each is not None][:_MOST_TRACES]


def _trace_id(stored: Any) -> str | None:
    try:
        ids = canonical.decode(stored)
    except ValueError:  # a damaged row
        return None
    return text(ids.get("trace_id")) if isinstance(ids, dict) else None


def _entry_json(entry: HistoryEntry) -> dict[str, Any]:
    call = entry.tool_call
    return {
        **vars(entry),
        "tool_call": None if call is None else vars(call),
        "scores": [vars(score) for score in entry.scores],
    }
