"""`inject` and `extract`: traces that go from one process to the next in the headers of a request.

The headers are those of `W3C Trace Context <https://www.w3.org/TR/trace-context/>`_:
``traceparent``, and ``tracestate``, which is passed on as it came::

    headers = {}
    tracker.inject(headers)                 # where a request is sent
    requests.post(url, headers=headers)

    with tracker.extract(request.headers):  # where it is answered
        with tracker.span("answer"):
            ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tracker import context
from tracker.errors import ValidationError
from tracker.span_context import SAMPLED, SpanContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?",
    re.DOTALL,
)
_STATE = re.compile(r"[\t -~]*")
_MOST_STATE = 8_192
_MOST_MEMBERS = 32
_NAMES = ("traceparent", "tracestate")


class RemoteParent:
    """The span of another process, made by `extract`: a ``with`` block in which it is current.

    If the headers name none, or are not valid, the block changes nothing.
    """

    def __init__(self, span: SpanContext | None) -> None:
        self._span = span
        self._entered: list[SpanContext | None] = []

    def __enter__(self) -> Self:
        span = self._span
        if span is not None:
            span = SpanContext(span.trace_id, span.span_id, None, span.flags, span.state)
            context.enter_span(span)
        self._entered.append(span)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._entered.pop()
        if span is not None:
            context.leave_span(span)


def inject(headers: Any) -> None:
    """Add the current span to the headers of a request, for the service that answers it.

    It sets ``traceparent``, and ``tracestate`` if one came with the request that is being answered;
    such headers that are there already are replaced, in upper case too. Outside of any span nothing
    changes. The current span may be one of OpenTelemetry.

    Args:
        headers: A dict or another mutable mapping, or a list of pairs; changed in place.

    Raises:
        ValidationError: if it is neither.
    """
    if not hasattr(headers, "__setitem__"):
        raise ValidationError(
            "headers", f"is of type {type(headers).__name__}; give a dict or a list of pairs"
        )
    span = context.current_span()
    if span is None:
        return
    made = [("traceparent", f"00-{span.trace_id}-{span.span_id}-{span.flags:02x}")]
    if span.state:
        made.append(("tracestate", span.state))
    if isinstance(headers, list):
        headers[:] = [pair for pair in headers if _text(pair[0]).lower() not in _NAMES] + made
        return
    for name in [name for name in headers if _text(name).lower() in _NAMES]:
        del headers[name]
    for name, value in made:
        headers[name] = value


def extract(headers: Any) -> RemoteParent:
    """Return a ``with`` block in which the sender of a request has the current span.

    What begins inside the block continues the sender's trace. Headers that are missing or not as
    W3C Trace Context defines them are ignored: the block then changes nothing. It may be entered
    again, and by several threads and tasks if each calls `extract`.

    Args:
        headers: The request's: a mapping, whose values may be lists, or pairs of name and value, as
            text or bytes. Upper and lower case of names does not matter.

    Raises:
        ValidationError: if it is neither a mapping nor an iterable of pairs.
    """
    parents: list[str] = []
    states: list[str] = []
    for name, value in _pairs(headers):
        if name == "traceparent":
            parents.append(value)
        elif name == "tracestate":
            states.append(value)
    return RemoteParent(_parse(parents[0], states) if len(parents) == 1 else None)


def _pairs(headers: Any) -> Iterator[tuple[str, str]]:
    """Yield the headers that matter, with their names in lower case."""
    items = headers.items() if hasattr(headers, "items") else headers
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise ValidationError(
            "headers", f"is of type {type(headers).__name__}; give a mapping or pairs"
        )
    for pair in items:
        try:
            name, values = pair
        except (TypeError, ValueError):
            raise ValidationError("headers", "has an item that is no pair") from None
        lowered = _text(name).lower()
        if lowered in _NAMES:
            for value in values if isinstance(values, (list, tuple)) else (values,):
                yield lowered, _text(value)


def _parse(parent: str, states: list[str]) -> SpanContext | None:
    """Return the span that the headers name, or None if they are not valid."""
    found = _PARENT.fullmatch(parent.strip(" \t"))
    if found is None or found["version"] == "ff":
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    flags = int(found["flags"], 16)
    if found["version"] == "00":
        if found["more"] is not None:
            return None
    else:  # of a later version only this flag is known
        flags &= SAMPLED
    return SpanContext(found["trace"], found["span"], None, flags, _state(states))


def _state(values: list[str]) -> str | None:
    """Return the ``tracestate`` to pass on; one that is not valid is dropped."""
    text = ",".join(value.strip(" \t") for value in values)
    members = [member for member in text.split(",") if member.strip(" \t")]
    if not members or len(members) > _MOST_MEMBERS or len(text) > _MOST_STATE:
        return None
    return text if _STATE.fullmatch(text) else None


def _text(value: object) -> str:
    """Return a header's name or value as text; other values become no valid one."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("latin-1")
    return value if isinstance(value, str) else ""
