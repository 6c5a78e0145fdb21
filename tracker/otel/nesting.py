"""Makes the tracker's own spans current in OpenTelemetry too, so that its spans become children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.span_context import SpanContext


class _Own(trace.NonRecordingSpan):
    """A span of the tracker. Blocks may be left in any order, so it knows what was before it."""

    def __init__(self, span: SpanContext) -> None:
        state = None if span.state is None else trace.TraceState.from_header([span.state])
        ids = int(span.trace_id, 16), int(span.span_id, 16)
        super().__init__(
            trace.SpanContext(
                *ids, is_remote=False, trace_flags=trace.TraceFlags(span.flags), trace_state=state
            )
        )
        self.outer = trace.get_current_span()
        self.left = False


def attach(span: SpanContext) -> Callable[[], None]:
    """Make a span current; return what makes the one before it current again."""
    own = _Own(span)
    _make_current(own)

    def release() -> None:
        own.left = True
        if trace.get_current_span() is own:  # and not another context, or a block within
            outer = own.outer
            while isinstance(outer, _Own) and outer.left:
                outer = outer.outer
            _make_current(outer)

    return release


def _make_current(span: trace.Span) -> None:
    """Change the span of the current context only: a block may have set more, such as baggage."""
    context.attach(trace.set_span_in_context(span))
