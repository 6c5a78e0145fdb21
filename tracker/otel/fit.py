"""Spans and log records that are too large for an event: their longest texts are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tracker import canonical
from tracker.errors import ValidationError
from tracker.otel import names
from tracker.redaction.uncut import cut_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_SHORTEST = 32
"""Texts are never cut to fewer characters; what does not fit then keeps its skeleton only."""
_TRIES = 3
_SKELETON_TEXT = 256
_EIGHTHS = (7, 4, 2)
"""Of the largest event, that a skeleton fills: ids need room, and masks may make it larger."""
_KEPT = (
    *("trace_id", "span_id", "parent_span_id", "parent_is_remote", "name", "kind", "start", "end"),
    *("run", "time", "observed", "severity", "severity_text", "event_name", "flags"),
)


def fitted(
    convert: Callable[[int], dict[str, Any]],
    record: Callable[[dict[str, Any]], T],
    max_bytes: int,
) -> T:
    """Return the result of `record` with data that fits.

    Args:
        convert: Returns the data, with all texts cut to so many characters.
        record: Raises ValidationError for data that is too large.
        max_bytes: The size of the largest event.

    Raises:
        ValidationError: if not even a skeleton of the data fits.
    """
    data = convert(max_bytes)
    try:
        return record(data)
    except ValidationError:
        for most in _limits(data, max_bytes):
            try:
                return record(convert(most))
            except ValidationError:  # characters that JSON escapes, or masks longer than a secret
                continue
    data = convert(_SKELETON_TEXT)
    for eighths in _EIGHTHS:
        try:
            return record(skeleton(data, max_bytes, max_bytes * eighths // 8))
        except ValidationError:  # as above
            continue
    return record(skeleton(data, max_bytes, 0))


def skeleton(data: dict[str, Any], max_bytes: int, room: int) -> dict[str, Any]:
    """Return what is kept of data that cannot be cut to fit: its place, its times, its figures.

    Besides these, so many of the first attributes, events and links as fit into `room` bytes with
    them, the attributes into half of what is left.
    """
    kept = {name: data[name] for name in _KEPT if name in data}
    given = data.get("attributes", {})
    found = {name: given[name] for name in names.SKELETON if name in given}
    if found:
        kept["attributes"] = found
    if "status" in data:
        kept["status"] = data["status"]
    kept.update(_origin(data, max_bytes // 8))
    if "body" in data:
        fits = _size(kept) + _size(data["body"]) <= room
        kept["body"] = data["body"] if fits else "[cut: all of it]"
    others = [(name, given[name]) for name in given if name not in found]
    if taken := _leading(others, (room - _size(kept)) // 2):
        kept["attributes"] = {**found, **dict(taken)}
    for part in ("events", "links"):
        if taken := _leading(data.get(part, ()), room - _size(kept)):
            kept[part] = taken
    for part in ("attributes", "events", "links"):
        missing = len(data.get(part, ())) - len(kept.get(part, ()))
        if number := data.get(f"dropped_{part}", 0) + missing:
            kept[f"dropped_{part}"] = number
    return kept


def _origin(data: dict[str, Any], most: int) -> dict[str, Any]:
    """Return resource and scope; only what names them, where they are larger than `most` bytes."""
    resource, scope = data.get("resource", {"attributes": {}}), data.get("scope")
    if _size(resource) > most:
        service = resource["attributes"].get("service.name")
        resource = {"attributes": {} if service is None else {"service.name": service}}
    if scope is None:
        return {"resource": resource}
    if _size(scope) > most:
        scope = {name: scope[name] for name in ("name", "version") if name in scope}
    return {"resource": resource, "scope": scope}


def _leading(items: Iterable[T], room: int) -> list[T]:
    """Return the first items, as many as take at most so many bytes."""
    taken: list[T] = []
    for each in items:
        room -= _size(each) + 1
        if room < 0:
            break
        taken.append(each)
    return taken


def _size(value: object) -> int:
    """Return how many bytes a value takes as JSON, once its texts are cut."""
    if isinstance(value, dict):
        return 2 + sum(_size(name) + _size(item) + 2 for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return 2 + sum(_size(item) + 1 for item in value)
    if isinstance(value, str):
        whole = len(canonical.encode(value).encode())
        length = cut_length(value)
        return whole if length >= len(value) else whole * length // len(value)
    return len(canonical.encode(value))


def _limits(data: dict[str, Any], max_bytes: int) -> Iterator[int]:
    """Yield lengths of texts, the longest first, with which the data may fit."""
    texts = [(len(text), len(canonical.encode(text).encode())) for text in _texts(data)]
    others = len(canonical.encode(data).encode()) - sum(size for _, size in texts)
    most = max_bytes // 2
    while most >= _SHORTEST:
        cut = sum(size if length <= most else size * most // length for length, size in texts)
        if others + cut < max_bytes:
            yield from (most >> again for again in range(_TRIES) if most >> again >= _SHORTEST)
            return
        most //= 2


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
