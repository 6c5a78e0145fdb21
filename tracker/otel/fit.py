"""Spans and log records that are too large for an event: their longest texts are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tracker import canonical
from tracker.errors import ValidationError
from tracker.otel import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_SHORTEST = 32
"""Texts are never cut to fewer characters; what does not fit then keeps its skeleton only."""
_TRIES = 3
_SKELETON_TEXT = 256
_KEPT = (
    *("trace_id", "span_id", "parent_span_id", "parent_is_remote", "name", "kind", "start", "end"),
    *("run", "time", "observed", "severity", "severity_text", "event_name", "flags", "scope"),
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
    return record(skeleton(convert(_SKELETON_TEXT), max_bytes))


def skeleton(data: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    """Return what is kept of data that cannot be cut to fit: its place, its times, its figures."""
    kept = {name: data[name] for name in _KEPT if name in data}
    given = data.get("attributes", {})
    found = {name: given[name] for name in names.SKELETON if name in given}
    if found:
        kept["attributes"] = found
    if "status" in data:
        kept["status"] = data["status"]
    if "body" in data:
        kept["body"] = "[cut: all of it]"
    for part, missing in (
        ("attributes", len(given) - len(found)),
        ("events", len(data.get("events", ()))),
        ("links", len(data.get("links", ()))),
    ):
        if number := data.get(f"dropped_{part}", 0) + missing:
            kept[f"dropped_{part}"] = number
    resource, scope = data.get("resource", {"attributes": {}}), data.get("scope")
    if len(canonical.encode(resource)) > max_bytes // 8:
        service = resource["attributes"].get("service.name")
        resource = {"attributes": {} if service is None else {"service.name": service}}
    if scope is not None and len(canonical.encode(scope)) > max_bytes // 8:
        kept["scope"] = {name: scope[name] for name in ("name", "version") if name in scope}
    return {**kept, "resource": resource}


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
