"""Reads the body of an OTLP request, in protobuf or JSON, item by item."""

from __future__ import annotations

import base64
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from tracker import canonical
from tracker.collector import numbers
from tracker.collector.batch import InvalidEventError
from tracker.collector.otlp.forms import PROTOBUF
from tracker.collector.refusal import invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker.collector.otlp.forms import Form
    from tracker.collector.otlp.signals import Level, Signal

_HEX_FIELDS = ("traceId", "spanId", "parentSpanId")
_JSON_FAULTS = (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError)
"""What `json_format` raises for JSON that is no such message."""


class Item(NamedTuple):
    """A span or log record of a request, as the messages that it was sent in.

    Attributes:
        resource: The group that has its resource.
        scope: The group that has its scope.
        message: The span or record; an error if the JSON of it is none.
    """

    resource: Any
    scope: Any
    message: Any


def items(body: bytes, form: Form, signal: Signal) -> Iterator[Item]:
    """Yield what a request carries, in the order sent.

    Raises:
        RefusedError: 400 if it is no such request.
    """
    return _from_protobuf(body, signal) if form == PROTOBUF else _from_json(body, signal)


def _from_protobuf(body: bytes, signal: Signal) -> Iterator[Item]:
    request = signal.request()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise invalid_request(f"The body is no {_name(signal)} in protobuf.") from None
    resources, scopes, messages = (level.name for level in signal.levels)
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            for message in getattr(scope, messages):
                yield Item(resource, scope, message)


def _from_json(body: bytes, signal: Signal) -> Iterator[Item]:
    try:
        content, _ = numbers.parse(body.decode("utf-8"))
    except (UnicodeDecodeError, JSONDecodeError, RecursionError):
        raise invalid_request(f"The body is no {_name(signal)} in JSON.") from None
    resources, scopes, messages = signal.levels
    for resource in _listed(content, resources):
        shared = _group(resource, resources, scopes)
        for scope in _listed(resource, scopes):
            around = _group(scope, scopes, messages)
            for message in _listed(scope, messages, checked=False):
                yield Item(shared, around, _message(message, messages))


def _name(signal: Signal) -> str:
    return str(signal.request.DESCRIPTOR.name)


def _listed(parent: Any, level: Level, *, checked: bool = True) -> list[Any]:
    """Return a list of objects in JSON; null is an empty one, as everywhere in protobuf."""
    found = parent.get(level.json_name) if isinstance(parent, dict) else ()
    if found is None:
        return []
    if not isinstance(found, list) or not (
        all(isinstance(each, dict) for each in found) or not checked
    ):
        raise invalid_request(f"{level.json_name} is not a list of objects.")
    return found


def _group(sent: dict[str, Any], level: Level, inner: Level) -> Any:
    """Return a group without what is in it."""
    rest = {name: value for name, value in sent.items() if name != inner.json_name}
    try:
        return _parsed(rest, level)
    except _JSON_FAULTS:
        raise invalid_request(f"An entry of {level.json_name} is invalid.") from None


def _message(sent: Any, level: Level) -> Any:
    """Return a span or log record, or an error that says what is wrong with it."""
    try:
        changed = _with_bytes(sent)
        if isinstance(sent.get("links"), list):
            changed["links"] = [_with_bytes(link) for link in sent["links"]]
        return _parsed(changed, level)
    except _JSON_FAULTS:
        return InvalidEventError(level.json_name, "an entry is not in OTLP's JSON form")


def _parsed(sent: dict[str, Any], level: Level) -> Any:
    """Return an object in JSON as a message; raise one of `_JSON_FAULTS` if it is none."""
    # A lone surrogate in the name of a field makes `json_format` raise SystemError.
    canonical.encode(sent).encode()
    return json_format.ParseDict(sent, level.message(), ignore_unknown_fields=True)


def _with_bytes(sent: dict[str, Any]) -> dict[str, Any]:
    """Return an object with ids in base64, as protobuf has bytes in JSON; in OTLP they are hex."""
    changed = dict(sent)
    for name in _HEX_FIELDS:
        if changed.get(name) is not None:
            changed[name] = base64.b64encode(bytes.fromhex(changed[name])).decode()
    return changed
