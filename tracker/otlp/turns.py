"""What of a conversation's earlier events decides how the next one is sent: its turns.

A turn is opened by a message of the user when none is open, and closed by the first message of the
agent after it. A turn is a trace of its own, unless its events were logged in spans: then those are
kept. `advance` is a pure function: the same events lead to the same state, whenever they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import events
from tracker.otlp import ids
from tracker.queries.spoken import answer, is_model, question

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDINGS = (events.CONVERSATION_ENDED, events.CONVERSATION_FAILED)
VERBATIM = (events.OTEL_SPAN, events.OTEL_SPAN_STARTED)
"""Types that are sent in a trace of their own application, whatever the turn."""
_MOST_TEXTS = 100
"""Messages of the user in one turn that its root shows, the newest ones."""


class Told(NamedTuple):
    """What spans of models tell, which counts where the application does not log it.

    Attributes:
        asked: What the user said before the first answer, or None.
        answered: The last answer, or None.
    """

    asked: str | None = None
    answered: str | None = None

    def then(self, given: Mapping[str, Any], answered: str) -> Told:
        """Return this with one more answer, of a span with these attributes."""
        return Told(question(given) if self.asked is None else self.asked, answered)


class Turn(NamedTuple):
    """One turn.

    Attributes:
        trace_id: Its trace.
        root_id: The span that its events are in.
        parent_id: The span that this one is in, or None if it is the trace's root.
        start_ms: When it was opened.
        asked: What the user said in it: contents of messages.
        rooted: Whether an event before has made its root span.
        has_usage: Whether the use of a model was logged in it.
        told: What spans tell of it.
    """

    trace_id: str
    root_id: str
    parent_id: str | None
    start_ms: int
    asked: tuple[Any, ...] = ()
    rooted: bool = False
    has_usage: bool = False
    told: Told = Told()


class Conversation(NamedTuple):
    """A conversation up to some event.

    Attributes:
        through: The seq of that event; 0 before the first one.
        turn: The open turn, or the last one; None before the first.
        start_ms: When its first event was logged, or None.
        first_asked: The content of the user's first message, or None.
        last_answer: The content of the agent's last message, or None.
        is_loose: Whether an event was sent in the trace of the conversation itself.
        told: What spans tell of it.
    """

    through: int = 0
    turn: Turn | None = None
    start_ms: int | None = None
    first_asked: Any = None
    last_answer: Any = None
    is_loose: bool = False
    told: Told = Told()

    @property
    def size(self) -> int:
        """About how many characters it holds."""
        turn = () if self.turn is None else (*self.turn.asked, *self.turn.told)
        said = (self.first_asked, self.last_answer, *self.told, *turn)
        return sum(len(str(each)) for each in said if each is not None)


def trace_of(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the trace and span that an event was logged in, or None."""
    trace = event.get("trace")
    return None if trace is None else (trace["trace_id"], trace["span_id"])


def advance(before: Conversation, event: Mapping[str, Any], client_id: str) -> Conversation:
    """Return the state after the next event of the conversation."""
    kind = event["type"]
    after = before._replace(
        through=event["seq"],
        start_ms=event["timestamp_ms"] if before.start_ms is None else before.start_ms,
    )
    if kind in VERBATIM:
        return _told(after, event) if kind == events.OTEL_SPAN else after
    trace = trace_of(event)
    is_root = trace is not None and event["trace"].get("turn") is True
    if trace is not None and is_root and not _is_in(after.turn, trace[0]):
        after = after._replace(turn=Turn(*trace, None, event["timestamp_ms"]))
    if kind == events.MESSAGE_LOGGED:
        after = _said(after, event, client_id)
    elif kind == events.LLM_USED and after.turn is not None:
        after = after._replace(turn=after.turn._replace(has_usage=True))
    elif kind in ENDINGS and after.turn is not None:
        after = after._replace(turn=after.turn._replace(rooted=True))
    if after.turn is None and "trace" not in event:
        after = after._replace(is_loose=True)
    return after


def _told(state: Conversation, event: Mapping[str, Any]) -> Conversation:
    """Return the state after a span that came in: one of a model may tell what was said."""
    given = event["data"].get("attributes")
    if not isinstance(given, dict) or not is_model(given):
        return state
    answered = answer(given)
    if answered is None:
        return state
    turn = state.turn
    if turn is not None and not turn.rooted:
        turn = turn._replace(told=turn.told.then(given, answered))
    return state._replace(turn=turn, told=state.told.then(given, answered))


def _said(state: Conversation, event: Mapping[str, Any], client_id: str) -> Conversation:
    role, content = event["data"].get("role"), event["data"].get("content")
    if role == "user":
        turn = state.turn
        if turn is None or turn.rooted:
            turn = _opened(event, client_id)
        turn = turn._replace(
            asked=(*turn.asked, content)[-_MOST_TEXTS:],
            start_ms=turn.start_ms if turn.asked else event["timestamp_ms"],
        )
        first = content if state.first_asked is None else state.first_asked
        return state._replace(turn=turn, first_asked=first)
    if role == "agent":
        turn = None if state.turn is None else state.turn._replace(rooted=True)
        return state._replace(turn=turn, last_answer=content)
    return state


def _opened(event: Mapping[str, Any], client_id: str) -> Turn:
    """Return the turn that a message of the user opens."""
    opener, trace = event["event_id"], trace_of(event)
    root = ids.root_of_turn(client_id, opener)
    if trace is not None:  # in a span, or in a turn that was answered already
        return Turn(trace[0], root, trace[1], event["timestamp_ms"])
    return Turn(ids.trace_of_turn(client_id, opener), root, None, event["timestamp_ms"])


def _is_in(turn: Turn | None, trace_id: str) -> bool:
    return turn is not None and turn.trace_id == trace_id
