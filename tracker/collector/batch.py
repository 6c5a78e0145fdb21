"""Conversion of a request body to a `Batch` of valid and rejected events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, NamedTuple, TypeGuard

from tracker import canonical
from tracker.collector import derived, numbers
from tracker.collector.refusal import RefusedError, client_mismatch, invalid_request
from tracker.collector.seals import packed, unpacked
from tracker.collector.tables import MAX_ID_LENGTH
from tracker.erasure import ERASED

PROTOCOL = 1
"""The version of the protocol."""
MAX_EVENTS = 500
"""Maximum number of events in a batch."""
_MAX_INTEGER = 2**63 - 1  # a BIGINT column
_MOST_LEVELS = 900  # which any version of Python parses, and PostgreSQL, however it is set

_BAD_NUMBER = "has NaN, Infinity or an integer of too many digits"

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# In one case, so that an erasure finds it: see `erasure.forms`.
_EVENT_ID = re.compile(
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}"
)
_TRACE_ID = re.compile(r'"trace_id":"([0-9a-f]{32})"[,}]')
_HEX = re.compile("[0-9a-f]{64}")
_SALT = re.compile("[0-9a-f]{32}")
_SEALED = re.compile("[0-9a-f]{128}")


class ReceivedEvent(NamedTuple):
    """A valid event as sent by the client, with the protocol's names.

    `data`, `context` and `trace` are canonical JSON text. `seal` is what `packed` and `sealed_as`
    return, or None for an event without a salt.
    """

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: str
    digest: str
    chain: str
    context: str | None = None
    trace: str | None = None
    seal: str | None = None


class Rejection(NamedTuple):
    """An event that is not stored; without `seq` it is an entry of ``rejected`` in the receipt.

    `seq` is 0 if the event has no valid one.
    """

    event_id: str
    code: str
    message: str
    seq: int = 0


@dataclass(frozen=True)
class Batch:
    """A checked request body.

    Attributes:
        client_id: The client of the events.
        outbox_id: Their outbox.
        sent_at_ms: The client's wall clock time when it sent them, Unix milliseconds.
        events: The valid events in the order sent.
        rejected: The other events in the order sent.
        event_ids: The ids given by the events in the order sent, valid or not.
        direct: Whether they came without an outbox: they get seq and chain when they are stored.
    """

    client_id: str
    outbox_id: str
    sent_at_ms: int
    events: tuple[ReceivedEvent, ...]
    rejected: tuple[Rejection, ...]
    event_ids: tuple[str, ...]
    direct: bool = False


class InvalidEventError(ValueError):
    """An event cannot be stored; `code` and the message become part of the receipt."""

    def __init__(self, field: str, problem: str, code: str = "invalid_event") -> None:
        super().__init__(f"{field}: {problem}")
        self.code = code


def parse_batch(body: bytes, client_id: str) -> Batch:
    """Return the batch in `body`, sent by `client_id`.

    Raises:
        RefusedError: 400 if the body is not a batch, 403 if it is another client's, 409 if it has
            another version of the protocol.
    """
    content, odd = _parse_json(body)
    if not isinstance(content, dict):
        raise invalid_request("The body is not a JSON object.")
    if odd and numbers.contains_bad_number({**content, "events": None}):
        raise invalid_request(f"The body is not JSON: it {_BAD_NUMBER}.")
    _check_protocol(content)
    _check_client(content, client_id)
    outbox_id = content.get("outbox_id")
    if not (isinstance(outbox_id, str) and _UUID.fullmatch(outbox_id)):
        raise invalid_request("outbox_id is not a UUID string.")
    if outbox_id.lower() == derived.outbox_id_of(client_id):
        raise invalid_request("outbox_id is that of what arrives without an outbox.")
    sent_at_ms = content.get("sent_at_ms")
    if not _is_integer(sent_at_ms, 0):
        raise invalid_request("sent_at_ms is not an integer of Unix milliseconds.")
    sent = content.get("events")
    if not isinstance(sent, list) or not sent:
        raise invalid_request("events is not a list of at least one event.")
    if len(sent) > MAX_EVENTS:
        raise invalid_request(f"events has {len(sent)} events; at most {MAX_EVENTS} are allowed.")
    events, rejected = _sort_out(sent, odd)
    return Batch(client_id, outbox_id, sent_at_ms, events, rejected, tuple(map(_sent_id, sent)))


def check_event(sent: object) -> ReceivedEvent:
    """Return the event in one entry of ``events``; unknown fields are ignored.

    Raises:
        InvalidEventError: if it is invalid; it names the first invalid field.
    """
    if not isinstance(sent, dict):
        raise InvalidEventError("event", "is not an object")
    data = _encode_object(sent, "data")
    event = ReceivedEvent(
        seq=_integer(sent, "seq", 1),
        event_id=_matching(sent, "event_id", _EVENT_ID, "a UUID string in lower or upper case"),
        type=_identifier(sent, "type"),
        timestamp_ms=_integer(sent, "timestamp_ms", -_MAX_INTEGER),
        agent_id=_optional_identifier(sent, "agent_id"),
        session_id=_optional_identifier(sent, "session_id"),
        user_id=_optional_identifier(sent, "user_id"),
        data=data,
        digest=_matching(sent, "digest", _HEX, "64 lower-case hex digits"),
        chain=_matching(sent, "chain", _HEX, "64 lower-case hex digits"),
        context=_encode_object(sent, "context") if "context" in sent else None,
        trace=_encode_object(sent, "trace") if "trace" in sent else None,
        seal=_seal(sent),
    )
    if not is_as_digested(event):
        raise InvalidEventError("digest", "is not that of the event", "digest_mismatch")
    return event


def is_as_digested(event: ReceivedEvent) -> bool:
    """Return True unless an event has a digest of something else.

    An erased event without a salt keeps the digest of its former data, so it cannot be checked.
    """
    bare = event._replace(data=event.data.rstrip(" "))  # see `erasure`: it is padded
    return (bare.data == ERASED and bare.seal is None) or has_its_digest(bare)


def has_its_digest(event: ReceivedEvent) -> bool:
    """Return True if the digest is that of the event, or of what an erasure has left of it."""
    salt, sealed = unpacked(event.seal)
    fields = (event.digest, event.context, event.trace, salt, sealed)
    return canonical.matches(*event[1:8], *fields)


def trace_id_of(event: ReceivedEvent) -> str | None:
    """Return the id of the trace that an event belongs to; None if it names none."""
    found = None if event.trace is None else _TRACE_ID.search(event.trace)
    return None if found is None else found[1]


def _parse_json(body: bytes) -> tuple[Any, bool]:
    try:
        return numbers.parse(body.decode("utf-8"))
    except RecursionError:
        raise invalid_request("The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise invalid_request("The body is not UTF-8.") from None
    except JSONDecodeError as error:
        raise invalid_request(f"The body is not JSON: {error}") from None


def _check_protocol(content: dict[str, Any]) -> None:
    if "protocol" not in content:
        raise invalid_request("protocol is missing.")
    spoken = content["protocol"]
    if isinstance(spoken, bool) or not isinstance(spoken, int) or spoken != PROTOCOL:
        # Not 400: the events may be valid, and a client discards events that a 400 points at.
        raise RefusedError(
            409, "unsupported_protocol", f"This collector supports only protocol {PROTOCOL}."
        )


def _check_client(content: dict[str, Any], client_id: str) -> None:
    named = content.get("client_id")
    if not isinstance(named, str):
        raise invalid_request("client_id is not a string.")
    if named != client_id:
        raise client_mismatch("client_id in the body is not the client in X-Client-ID.")


def _sort_out(
    sent: list[Any], odd: bool
) -> tuple[tuple[ReceivedEvent, ...], tuple[Rejection, ...]]:
    checked = [_event_or_rejection(entry, odd) for entry in sent]
    return (
        tuple(entry for entry in checked if isinstance(entry, ReceivedEvent)),
        tuple(entry for entry in checked if isinstance(entry, Rejection)),
    )


def _event_or_rejection(entry: object, odd: bool) -> ReceivedEvent | Rejection:
    try:
        if odd and numbers.contains_bad_number(entry):
            raise InvalidEventError("event", _BAD_NUMBER)
        return check_event(entry)
    except InvalidEventError as error:
        return Rejection(_sent_id(entry), error.code, str(error), _sent_seq(entry))


def _sent_id(sent: object) -> str:
    event_id = sent.get("event_id") if isinstance(sent, dict) else None
    return event_id if isinstance(event_id, str) else ""


def _sent_seq(sent: object) -> int:
    seq = sent.get("seq") if isinstance(sent, dict) else None
    return seq if _is_integer(seq, 1) else 0


def _field(sent: dict[str, Any], name: str) -> Any:
    try:
        return sent[name]
    except KeyError:
        raise InvalidEventError(name, "is missing") from None


def _is_integer(value: object, least: int) -> TypeGuard[int]:
    # In Python, true is an int.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MAX_INTEGER


def _integer(sent: dict[str, Any], name: str, least: int) -> int:
    value = _field(sent, name)
    if not _is_integer(value, least):
        raise InvalidEventError(name, f"is not an integer from {least} to {_MAX_INTEGER}")
    return int(value)


def _matching(sent: dict[str, Any], name: str, pattern: re.Pattern[str], wanted: str) -> str:
    value = _field(sent, name)
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        raise InvalidEventError(name, f"is not {wanted}")
    return value


def _identifier(sent: dict[str, Any], name: str) -> str:
    value = _field(sent, name)
    if not isinstance(value, str):
        raise InvalidEventError(name, "is not a string")
    if not value:
        raise InvalidEventError(name, "is empty")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidEventError(name, f"has more than {MAX_ID_LENGTH} characters")
    if "\0" in value:
        # PostgreSQL cannot store it.
        raise InvalidEventError(name, "has a NUL character")
    _check_encodable(name, value)
    return value


def _optional_identifier(sent: dict[str, Any], name: str) -> str | None:
    return None if _field(sent, name) is None else _identifier(sent, name)


def _seal(sent: dict[str, Any]) -> str | None:
    if "sealed" in sent:
        if "salt" in sent:
            raise InvalidEventError("sealed", "is there beside salt; an event has one of them")
        return _matching(sent, "sealed", _SEALED, "128 lower-case hex digits")
    if "salt" in sent:
        return packed(_matching(sent, "salt", _SALT, "32 lower-case hex digits"))
    return None


def _encode_object(sent: dict[str, Any], name: str) -> str:
    value = _field(sent, name)
    if not isinstance(value, dict):
        raise InvalidEventError(name, "is not an object")
    try:
        text = canonical.encode(value)
    except RecursionError:
        raise InvalidEventError(name, "is nested too deeply") from None
    except ValueError:
        # Only numbers such as 1e999 get this far: Python parses them as infinity.
        raise InvalidEventError(name, "has a number that is too large") from None
    _check_encodable(name, text)
    if text.count("[") + text.count("{") > _MOST_LEVELS and _is_deep(value):
        raise InvalidEventError(name, "is nested too deeply")
    return text


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(_MOST_LEVELS):
        within = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for some in within for each in some if isinstance(each, (dict, list))]
        if not level:
            return False
    return True


def _check_encodable(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(name, "has a lone surrogate, which UTF-8 cannot encode") from None
