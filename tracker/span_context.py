"""`SpanContext`: the ids of a span, as its events carry them in ``trace``."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

API = "opentelemetry.trace"
"""The module of OpenTelemetry's API; it is used if it is loaded, and never imported."""
SAMPLED = 1
"""The flag of W3C Trace Context that says that a span is recorded."""


class SpanContext:
    """A span's place in its trace: ids of the sizes of W3C Trace Context, in lower case hex.

    Attributes:
        trace_id: 32 hex digits, not all zero.
        span_id: 16 hex digits, not all zero.
        parent_span_id: The enclosing span, or None.
        flags: The flags of W3C Trace Context, passed on to other services.
        state: The ``tracestate`` of W3C Trace Context, passed on unread, or None.
        text: The ids as canonical JSON text. That of a turn says so: an outbox has no index of it,
            since it has one of sessions.
        beside: The span of OpenTelemetry that was current when this one became current.
        outer: The span that is current again when this one is left.
        left: Whether it was left.
        parent: The enclosing span of this process, until this one is left.
        release: Has it no longer be the current span of OpenTelemetry, if it is.
        told: What tells the exception whose traceback a span inside this one has recorded.
    """

    __slots__ = (
        "beside", "flags", "left", "outer", "parent", "parent_span_id", "release", "span_id",
        "state", "text", "told", "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        trace_id: str,
        span_id: str,
        parent_span_id: str | None = None,
        flags: int = SAMPLED,
        state: str | None = None,
        *,
        turn: bool = False,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_span_id = parent_span_id
        self.flags = flags
        self.state = state
        parent = "" if parent_span_id is None else f'"parent_span_id":"{parent_span_id}",'
        mark = ',"turn":true' if turn else ""
        self.text = f'{{{parent}"span_id":"{span_id}","trace_id":"{trace_id}"{mark}}}'
        self.beside: str | None = None
        self.outer: SpanContext | None = None
        self.left = False
        self.parent: SpanContext | None = None
        self.release: Callable[[], None] | None = None
        self.told: object = None

    def child(self) -> SpanContext:
        """Return a new span inside this one."""
        made = SpanContext(self.trace_id, _random(8), self.span_id, self.flags, self.state)
        made.parent = self
        return made


def new_trace() -> SpanContext:
    """Return the first span of a new trace."""
    return SpanContext(_random(16), _random(8))


def new_turn() -> SpanContext:
    """Return the root of a new trace, that of a conversation's turn."""
    return SpanContext(_random(16), _random(8), turn=True)


def new_span(parent: SpanContext | None) -> SpanContext:
    """Return a new span inside `parent` or, for None, the first one of a new trace."""
    return new_trace() if parent is None else parent.child()


def new_conversation(parent: SpanContext, session_id: str) -> SpanContext:
    """Return the span of a conversation inside of `parent`; see `span_of_conversation`."""
    span_id = span_of_conversation(parent.trace_id, session_id)
    return SpanContext(parent.trace_id, span_id, parent.span_id, parent.flags, parent.state)


def span_of_conversation(trace_id: str, session_id: str) -> str:
    """Return the id of a conversation's span, by which its end is known as the record of it.

    The end of a conversation may be logged in another span, which another event records.
    """
    return hashlib.sha256(f"{trace_id} {session_id}".encode()).hexdigest()[:16]


def foreign_span() -> SpanContext | None:
    """Return the current span of OpenTelemetry, if its API is loaded and such a span is current.

    It is never imported here, and no error of it is raised.
    """
    api: Any = sys.modules.get(API)
    if api is None:
        return None
    try:
        found = api.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        state = found.trace_state.to_header() if found.trace_state else None
        trace_id, span_id = f"{found.trace_id:032x}", f"{found.span_id:016x}"
        if (len(trace_id), len(span_id)) != (32, 16):
            return None
        return SpanContext(trace_id, span_id, None, int(found.trace_flags) & 0xFF, state)
    except Exception:  # noqa: BLE001 - half imported, replaced or broken, it is not our caller's fault
        return None


def _random(size: int) -> str:
    """Return random hex digits, not all zero. Each process draws its own, forked ones included."""
    drawn = os.urandom(size).hex()
    return drawn if drawn.strip("0") else _random(size)
