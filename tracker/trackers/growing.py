"""`log_messages`: logs what is new in a conversation's list of messages."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical, context, validation
from tracker.errors import ValidationError
from tracker.events import MESSAGE_LOGGED, TOOL_CALLED
from tracker.trackers import chat
from tracker.trackers.alignment import ERASED, Compared, Place, compare
from tracker.trackers.chat import Call, Message, Result
from tracker.trackers.reading import ReadingTracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from tracker.events import Event
    from tracker.sessions import Session

_KEY_BYTES = 6
_MESSAGE = ("role", "content", "name")
_CALL = ("name", "arguments", "call_id")
_ANSWERED = ("result", "error", "duration_ms")


class ChatTracker(ReadingTracker):
    """Logs conversations as the lists of messages that the model APIs take and return."""

    def log_messages(
        self,
        session_id: str | None = None,
        messages: Sequence[Any] | None = None,
        *,
        timestamp: datetime | int | None = None,
    ) -> list[str]:
        """Log what is new in a conversation's list of messages; return the new events' ids.

        The list is the conversation as a model gets it: the messages of OpenAI's chat completions,
        the items of its responses, or the messages of Anthropic's API, as dicts or as the objects
        of their SDKs. Give it again whenever it has grown, from any process: what the outbox holds
        of the conversation is not logged again, whichever call logged it. All that is new is
        stored in one transaction.

        A tool call becomes one ``tool.called`` event with its result, if the list has one; a result
        that comes when its call is already logged becomes a message of the role ``tool`` with the
        call's id. A message that differs from what was logged is new. Of a list whose beginning was
        trimmed away or replaced, the new messages are found by their order; see
        `tracker.trackers.alignment`. So give the whole list, or its end: to log a single message,
        use `log_message`.

        Args:
            session_id: The conversation; None means the current one.
            messages: The list.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.

        Raises:
            ValidationError: if anything in the list is no message, or is too large; nothing is
                stored.
        """
        session_id = context.resolve(session_id)
        entries = chat.read("messages", messages, self.config.json_default)
        when = None if timestamp is None else validation.check_timestamp("timestamp", timestamp)
        listed = [self._listed(entry) for entry in entries if not isinstance(entry, Result)]
        self._check_open()
        session = self._client.sessions.use(session_id)
        found: list[_Found] = []
        made: list[tuple[Event | None, dict[str, int]]] = []

        def choose(stored: Iterable[tuple[str, str]]) -> list[Event]:
            found[:] = _new(listed, _Stored(stored))
            if found:
                found[-1].data["list_fingerprint"] = _prefixes(listed)[-1]
            made[:] = [self._in_turn(each, session_id, session, when) for each in found]
            return [event for event, _ in made if event is not None]

        self._client.record_new(session_id, choose)
        for event, masked in made:
            if event is None:  # the application's hook dropped it
                self._client.count_dropped()
            elif masked and self.config.report_redactions:
                self._report_redactions(event, masked)
        return [event.event_id for event, _ in made if event is not None]

    def _in_turn(
        self, found: _Found, session_id: str, session: Session, timestamp_ms: int | None
    ) -> tuple[Event | None, dict[str, int]]:
        """Return the event for something new; a message of the user begins a turn."""
        role = found.data.get("role")
        current = context.SCOPE.get().conversation
        if current is None or current.session_id != session_id:
            return self._made(found, session_id, session, timestamp_ms)
        if role == "user":
            current._user_spoke(time.monotonic() if timestamp_ms is None else None)
        made = self._made(found, session_id, session, timestamp_ms)
        if role == "agent":
            current._agent_spoke()
        return made

    def _made(
        self, found: _Found, session_id: str, session: Session, timestamp_ms: int | None
    ) -> tuple[Event | None, dict[str, int]]:
        """Return the event for something new, and the number of masks in it by kind."""
        outer = context.current_span() if found.type == TOOL_CALLED else None
        try:
            return self._make(
                *(found.type, found.data, session.agent_id, session_id, session.user_id),
                *(("arguments",), timestamp_ms, None if outer is None else outer.child()),
            )
        except ValidationError as error:  # too large
            place = f"messages[{found.data['list_index']}].{error.argument}"
            raise ValidationError(place, error.problem) from error

    def _listed(self, entry: Message | Call) -> _Listed:
        """Return a message or call of a list, with the key by which it is compared."""
        if isinstance(entry, Message):
            data = {
                "role": entry.role,
                "content": entry.content,
                "name": entry.name,
                "call_id": entry.call_id,
                "model": entry.model,
            }
            kind = MESSAGE_LOGGED
        else:
            data = {"name": entry.name, "arguments": entry.arguments, "call_id": entry.call_id}
            kind = TOOL_CALLED
        clean, _ = self._redactor.apply(kind, data)
        return _Listed(kind, data, entry, _place(kind, clean, entry.index), _by_id(clean))


class _Listed(NamedTuple):
    """A message or call of a list.

    Attributes:
        type: The type of its event.
        data: The event's data, without a call's result.
        entry: What it was made of.
        place: What it is compared by.
        by_id: What the result of a call is compared by if its call is not known.
    """

    type: str
    data: dict[str, Any]
    entry: Message | Call
    place: Place
    by_id: int

    @property
    def answer(self) -> int:
        """What the result of a call is compared by."""
        return _key(["result", self.place.key])


class _Found(NamedTuple):
    """Type and data of an event that is not stored yet."""

    type: str
    data: dict[str, Any]


class _Stored:
    """What is stored of a conversation, to be compared with a list.

    Attributes:
        places: Its messages and calls, and the results of calls.
        answers: How many results are stored, by what they are compared by.
        list_fingerprint: That of the list which the newest message came with; None if it came
            alone.
    """

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self.places: list[Place] = []
        self.answers: Counter[int] = Counter()
        self.list_fingerprint: object = None
        for kind, text in rows:
            data = _decoded(text)
            self.list_fingerprint = data.get("list_fingerprint")
            if data.get("erased") is True:
                self.places.append(Place(ERASED))
                continue
            index, fingerprint = (
                value if isinstance(value := data.get(name), int) else None
                for name in ("list_index", "fingerprint")
            )
            place = _place(kind, data, index, fingerprint)
            self.places.append(place)
            if kind == TOOL_CALLED and any(data.get(name) is not None for name in _ANSWERED):
                self.answers[_key(["result", place.key])] += 1
                self.places.append(Place(_by_id(data), place.at, apart=True))
            elif place.apart:
                self.answers[_by_id(data) if fingerprint is None else fingerprint] += 1

    def is_answered(self, call: _Listed) -> bool:
        """Return True if the result of a call is stored; ask once for each call."""
        for key in (call.answer, call.by_id):
            if self.answers[key] > 0:
                self.answers[key] -= 1
                return True
        return False


def _new(listed: Sequence[_Listed], stored: _Stored) -> Iterable[_Found]:
    """Yield what is not stored yet, in order."""
    new, gone = _compared(listed, stored)
    for position, each in enumerate(listed):
        result = each.entry.result if isinstance(each.entry, Call) else None
        if position in new:
            data = {**each.data, "list_index": each.place.at}
            if not each.place.apart:
                data["fingerprint"] = each.place.key
            if result is not None:
                data["error" if result.error else "result"] = result.error_text or result.value
            yield _Found(each.type, data)
        elif result is not None and position not in gone and not stored.is_answered(each):
            yield _Found(MESSAGE_LOGGED, _late(result, each))


def _compared(listed: Sequence[_Listed], stored: _Stored) -> Compared:
    """Compare a list with what is stored; if it goes on from the last one, only by its length."""
    before = _prefixes(listed)
    if stored.list_fingerprint in before:
        known = before.index(stored.list_fingerprint)
        return Compared(set(range(known, len(listed))), set())
    return compare([each.place for each in listed], stored.places)


def _prefixes(listed: Sequence[_Listed]) -> list[int]:
    """Return a fingerprint of each beginning of a list, from the empty one to the whole."""
    found = [0]
    for each in listed:
        found.append(_key([found[-1], each.place.key]))
    return found


def _late(result: Result, call: _Listed) -> dict[str, Any]:
    """Return the data of the message for a result whose call is logged without it."""
    message = chat.as_message(result)
    return {
        "role": message.role,
        "content": message.content,
        "name": call.data["name"],
        "call_id": call.data["call_id"],
        "list_index": result.index,
        "fingerprint": call.answer,
    }


def _place(
    type: str, data: dict[str, Any], index: int | None, fingerprint: int | None = None
) -> Place:
    """Return what a message or call is compared by: what is stored of it, after the masks.

    One that was logged from a list has its fingerprint.
    """
    if type == MESSAGE_LOGGED and data.get("call_id") is not None:
        return Place(_by_id(data), index, apart=True)
    if fingerprint is None:
        names = _MESSAGE if type == MESSAGE_LOGGED else _CALL
        fingerprint = _key([data.get(name) for name in names])
    system = type == MESSAGE_LOGGED and data.get("role") == "system"
    return Place(fingerprint, index, system=system)


def _by_id(data: dict[str, Any]) -> int:
    """Return what a result is compared by whose call is not known: the call's id, or its name."""
    return _key(["result", data.get("call_id") or data.get("name")])


def _key(said: list[Any]) -> int:
    text = canonical.encode(said)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:_KEY_BYTES], "big")


def _decoded(text: str) -> dict[str, Any]:
    try:
        data = canonical.decode(text)
    except ValueError:  # a damaged row
        return {}
    return data if isinstance(data, dict) else {}
