"""Spans of OpenTelemetry as the data of ``otel.span`` and ``otel.span_started`` events.

=====================  ==========================================================================
``trace_id``           32 hex digits
``span_id``            16 hex digits
``parent_span_id``     the same, if there is a parent
``parent_is_remote``   True if the parent belongs to another process
``trace_state``        of W3C Trace Context, if there is one
``name``               text
``kind``               ``internal``, ``server``, ``client``, ``producer`` or ``consumer``
``start``, ``end``     nanoseconds since 1970 as text, which keeps every digit in any language
``attributes``         an object, whose values `tracker.otel.plain` describes
``events``             ``name``, ``time``, ``attributes``, ``dropped_attributes`` of each
``links``              ``trace_id``, ``span_id``, ``trace_state``, ``is_remote``, ``attributes``,
                       ``dropped_attributes`` of each
``status``             ``code``, which is ``ok`` or ``error``, and ``message``
``dropped_…``          number of ``attributes``, ``events`` and ``links`` that were left out
``resource``           ``attributes`` and ``schema_url``
``scope``              ``name``, ``version``, ``schema_url`` and ``attributes``
``run``                only of a start: names the process's run, so that its end can be seen
=====================  ==========================================================================

What is empty is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, StatusCode

from tracker.span_context import SpanContext

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import Event, ReadableSpan

    from tracker.otel.origin import Origins
    from tracker.otel.plain import Plain

KINDS = {kind: kind.name.lower() for kind in SpanKind}
CODES = {StatusCode.OK: "ok", StatusCode.ERROR: "error"}


def place(context: trace.SpanContext, parent: trace.SpanContext | None) -> SpanContext:
    """Return a span's place in its trace, for the event's ``trace``."""
    return SpanContext(
        format(context.trace_id, "032x"),
        format(context.span_id, "016x"),
        None if parent is None else format(parent.span_id, "016x"),
    )


def started(
    span: ReadableSpan, where: SpanContext, plain: Plain, origins: Origins
) -> dict[str, Any]:
    """Return the data of a span that has started."""
    data: dict[str, Any] = {
        "trace_id": where.trace_id,
        "span_id": where.span_id,
        "name": plain.text(span.name),
        "kind": KINDS[span.kind],
        "start": str(span.start_time),
        "resource": origins.resource(span.resource),
    }
    if span.parent is not None:
        data["parent_span_id"] = where.parent_span_id
        if span.parent.is_remote:
            data["parent_is_remote"] = True
    if span.context is not None and span.context.trace_state:
        data["trace_state"] = plain.text(span.context.trace_state.to_header())
    if span.attributes:
        data["attributes"] = plain.attributes(span.attributes)
    if span.instrumentation_scope is not None:
        data["scope"] = origins.scope(span.instrumentation_scope)
    return data


def ended(span: ReadableSpan, where: SpanContext, plain: Plain, origins: Origins) -> dict[str, Any]:
    """Return the data of a span that has ended."""
    data = started(span, where, plain, origins)
    data["end"] = str(span.end_time)
    if events := span.events:
        data["events"] = [_event(event, plain) for event in events]
    if links := span.links:
        data["links"] = [_link(link, plain) for link in links]
    status = span.status
    if status.status_code is not StatusCode.UNSET:
        data["status"] = {"code": CODES[status.status_code]}
        if status.description:
            data["status"]["message"] = plain.text(status.description)
    if dropped := span.dropped_attributes + plain.cut:
        data["dropped_attributes"] = dropped
    if dropped := span.dropped_events:
        data["dropped_events"] = dropped
    if dropped := span.dropped_links:
        data["dropped_links"] = dropped
    return data


def _event(event: Event, plain: Plain) -> dict[str, Any]:
    data: dict[str, Any] = {"name": plain.text(event.name), "time": str(event.timestamp)}
    if event.attributes:
        data["attributes"] = plain.attributes(event.attributes)
    if dropped := event.dropped_attributes:
        data["dropped_attributes"] = dropped
    return data


def _link(link: trace.Link, plain: Plain) -> dict[str, Any]:
    context = link.context
    data: dict[str, Any] = {
        "trace_id": format(context.trace_id, "032x"),
        "span_id": format(context.span_id, "016x"),
    }
    if context.trace_state:
        data["trace_state"] = plain.text(context.trace_state.to_header())
    if context.is_remote:
        data["is_remote"] = True
    if link.attributes:
        data["attributes"] = plain.attributes(link.attributes)
    if dropped := link.dropped_attributes:
        data["dropped_attributes"] = dropped
    return data
