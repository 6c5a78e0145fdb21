"""JSON values of events as OTLP's `AnyValue`, and back; `tracker.otel.plain` says how they look.

There is no I/O here. Nothing raises for a JSON value: what OTLP does not have becomes text. So an
event that another version wrote, or a mask changed, can always be sent.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from tracker import canonical
from tracker.otel.plain import BYTES, DOUBLE, MARK, MAX_DEPTH, MAX_INT, MIN_INT, Plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_SCALARS: Final[Collection[str]] = ("int_value", "double_value", "bool_value", "bytes_value")
_DOUBLES = ("nan", "inf", "-inf")


def key_values(attributes: Mapping[str, Any], depth: int = MAX_DEPTH) -> list[KeyValue]:
    """Return a JSON object as OTLP attributes, in the order of their keys."""
    return [
        KeyValue(
            key=key[1:] if key.startswith(MARK + MARK) else key,
            value=any_value(attributes[key], depth),
        )
        for key in sorted(attributes)
    ]


def any_value(value: Any, depth: int = MAX_DEPTH) -> AnyValue:
    """Return a JSON value as an `AnyValue`; what is deeper than `depth` becomes JSON text."""
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        if MIN_INT <= value <= MAX_INT:
            return AnyValue(int_value=value)
        return AnyValue(string_value=canonical.encode(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if depth == 0:
        return AnyValue(string_value=canonical.encode(value))
    if isinstance(value, dict):
        tagged = _tagged(value) if len(value) == 1 else None
        if tagged is not None:
            return tagged
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value, depth - 1)))
    items = [any_value(item, depth - 1) for item in value]
    return AnyValue(array_value=ArrayValue(values=items))


def json_attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return OTLP attributes as a JSON object. Of two with one key, the last counts."""
    return {_key(pair.key): json_value(pair.value) for pair in pairs}


def json_value(value: AnyValue) -> Any:
    """Return an `AnyValue` as a JSON value."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "array_value":
        return [json_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return json_attributes(value.kvlist_value.values)
    if kind is not None and kind in _SCALARS:
        return _PLAIN.value(getattr(value, kind))
    return None  # and what refers to a table of a profile is nothing here


_PLAIN = Plain(0)
"""For numbers, booleans and bytes; it is given no text."""


def _key(key: str) -> str:
    return MARK + key if key.startswith(MARK) else key


def _tagged(value: dict[str, Any]) -> AnyValue | None:
    """Return bytes or a special number that is written as an object; None for another object."""
    ((key, text),) = value.items()
    if not isinstance(text, str):
        return None
    if key == DOUBLE and text in _DOUBLES:
        return AnyValue(double_value=float(text))
    if key == BYTES:
        try:
            return AnyValue(bytes_value=base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):  # it was masked
            return AnyValue(string_value=text)
    return None
