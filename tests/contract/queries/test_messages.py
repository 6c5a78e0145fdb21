"""What was said first, and where a text was said: the same as by reading whole histories."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.sources import START_MS, Logged, Source
from tracker import ValidationError
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.history import HistoryEntry, get_conversation_history
from tracker.queries.opening import MOST_CHARACTERS, FirstSaid, first_said
from tracker.queries.search import MOST_CHARACTERS as EXCERPT
from tracker.queries.search import Matches, search

if TYPE_CHECKING:
    from collections.abc import Sequence

ERASED = {"erased": True}
SAID: Sequence[Any] = (
    "Where is my order?",
    "ORDER seven: 100% _sure_ of it\\n",
    'He said "no/yes"\n\tand left <b>',
    "Größe ÄNDERN, s'il vous plaît",
    "日本語で話せますか",
    "x" * 400 + " order",
    [{"type": "text", "text": "Look at this order"}, {"type": "image", "sha256": "0", "bytes": 3}],
    [{"type": "text", "text": "one"}, {"type": "refusal", "refusal": "No order."}],
    None,
    [3],
    "",
)
TEXTS = (
    *("order", "ORDER SEVEN", "100%", "_sure_", "\\n", '"no/yes"\n', "<b>", "größe ä", "日本"),
    *("話せ", "s'il", "No order.", "no such thing", "?", "x" * 256),
)


def span(number: int, question: str, answer: str | None, **fields: Any) -> Logged:
    """Return the span of a call of a model."""
    said = [{"role": "user", "parts": [{"type": "text", "content": question}]}]
    told = [{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(said),
        **({} if answer is None else {"gen_ai.output.messages": json.dumps(told)}),
    }
    trace = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}"}
    data = {"attributes": attributes, "name": "chat", "start": "1", "end": "2"}
    return Logged("otel.span", data=data, trace=dict(sorted(trace.items())), **fields)


def drawn(draw: random.Random) -> list[Logged]:
    """Return events of sixty conversations: messages, spans, both, or neither."""
    found = []
    for number in range(500):
        session = draw.randrange(60)
        common: dict[str, Any] = {
            "session_id": None if draw.random() < 0.05 else f"s-{session}",
            "timestamp_ms": START_MS + number,
            "user_id": f"user-{session % 3}",
        }
        said = draw.choice(SAID)
        if session % 3 == 0 and draw.random() < 0.7:
            text = said if isinstance(said, str) else "What?"
            found.append(span(number, text, draw.choice((None, "An order.")), **common))
        elif session % 5 == 0:
            found.append(Logged("tool.called", data={"name": "order"}, **common))
        elif draw.random() < 0.1:
            found.append(Logged("message.logged", data=ERASED, **common))
        else:
            data = {"role": draw.choice(("user", "agent", "system")), "content": said}
            found.append(Logged("message.logged", data=data, **common))
    return found


@pytest.fixture
def stored(source: Source) -> Source:
    source.store(drawn(random.Random(3)))  # noqa: S311 - not secrets
    return source


def history(source: Source, session_id: str) -> tuple[HistoryEntry, ...]:
    return get_conversation_history(source.connection, session_id, events=source.events)


def slowly(entries: Sequence[HistoryEntry]) -> FirstSaid | None:
    """Return what the user said first by a look at a whole history."""
    for entry in entries:
        if entry.role == "user":
            return FirstSaid(beginning(entry.content))
    asked = [entry.prompt for entry in entries if entry.prompt]
    if asked:
        return FirstSaid(beginning(asked[0]))
    return FirstSaid(None, True) if any(is_erased(entry) for entry in entries) else None


def is_erased(entry: HistoryEntry) -> bool:
    return entry.erased and entry.type == "message.logged"


def beginning(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())[:MOST_CHARACTERS]


def test_what_was_said_first_is_what_the_history_begins_with(stored: Source) -> None:
    """Text, parts, nothing captured, erased, or told by a span; each conversation its own."""
    sessions = [f"s-{number}" for number in range(60)] + ["unknown"]
    found = first_said(stored.connection, sessions, stored.events)
    expected = {each: slowly(history(stored, each)) for each in sessions}
    assert found == {name: said for name, said in expected.items() if said is not None}
    assert {type(said.text) for said in found.values()} == {str, type(None)}
    assert {said.erased for said in found.values()} == {True, False}


def found_slowly(source: Source, text: str, wanted: Filters) -> list[str]:
    """Return the ids of the messages that contain a text, newest first, by reading everything."""
    found = []
    for number in range(60):
        if wanted.user_id in (None, f"user-{number % 3}"):
            for entry in history(source, f"s-{number}"):
                said = [entry.prompt, entry.content if entry.role != "tool" else None]
                if any(each is not None and text.lower() in each.lower() for each in said):
                    found.append(entry.event_id)
    return sorted(found, key=source.ids.index, reverse=True)


def ids(page: Matches, source: Source) -> list[str]:
    """Return the ids of what was found in conversations."""
    return [each.event_id for each in page.found if each.session_id is not None]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("wanted", [EVERYTHING, Filters(user_id="user-1")], ids=str)
def test_a_search_finds_what_the_histories_say(stored: Source, text: str, wanted: Filters) -> None:
    """Whatever JSON escapes, in any case, own messages and spans; page after page too."""
    whole = search(stored.connection, text, wanted, 1000, events=stored.events)
    assert ids(whole, stored) == found_slowly(stored, text, wanted)
    assert (whole.next, whole.looked_back_to_ms) == (None, None)
    listed, before = [], None
    while True:
        page = search(stored.connection, text, wanted, 7, before, events=stored.events, seconds=0)
        listed += page.found
        if page.next is None:
            break
        assert before is None or page.next < before, "it stands still"
        before = page.next
    assert listed == whole.found


def test_an_excerpt_shows_the_place(stored: Source) -> None:
    """Of a long message too, and at most so much of it."""
    found = search(stored.connection, "ORDER", events=stored.events, limit=1000).found
    assert all("order" in each.excerpt.lower() for each in found)
    assert max(len(each.excerpt) for each in found) <= EXCERPT


def test_a_search_for_nothing_is_refused(stored: Source) -> None:
    """It would find every message."""
    with pytest.raises(ValidationError, match="text: is empty"):
        search(stored.connection, "", events=stored.events)
