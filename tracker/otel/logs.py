"""Log records of OpenTelemetry as the data of ``otel.log`` events.

======================  =========================================================================
``time``                nanoseconds since 1970 as text, if the record has a time of its own
``observed``            the same, when OpenTelemetry saw it; always there
``severity``            OpenTelemetry's number: 1 is TRACE, 5 DEBUG, 9 INFO, 13 WARN, 17 ERROR
``severity_text``       the logger's own name for it
``body``                any value, as `tracker.otel.plain` describes it
``event_name``          the name of the event that the record is
``trace_id``            32 hex digits, if it was logged inside a span
``span_id``             16 hex digits
``flags``               of W3C Trace Context, if not 0
``attributes``          an object
``dropped_attributes``  number of attributes that were left out
``resource``            ``attributes`` and ``schema_url``
``scope``               ``name``, which is the logger's, ``version``, ``schema_url``, ``attributes``
======================  =========================================================================

What is empty is left out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tracker.span_context import SpanContext

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord

    from tracker.otel.origin import Origins
    from tracker.otel.plain import Plain


def severity_of(given: ReadableLogRecord | ReadWriteLogRecord) -> int | None:
    """Return OpenTelemetry's number for how severe a record is, or None if it has none.

    It may be a plain number, or anything else: nobody checks it.
    """
    severity = given.log_record.severity_number
    number = getattr(severity, "value", severity)
    return number if type(number) is int else None


def place(given: ReadableLogRecord | ReadWriteLogRecord) -> SpanContext | None:
    """Return the span that a record was logged in, or None."""
    record = given.log_record
    if not record.trace_id or not record.span_id:
        return None
    return SpanContext(format(record.trace_id, "032x"), format(record.span_id, "016x"))


def emitted(
    given: ReadableLogRecord | ReadWriteLogRecord, plain: Plain, origins: Origins
) -> dict[str, Any]:
    """Return the data of a log record."""
    record, resource, scope = given.log_record, given.resource, given.instrumentation_scope
    data = {
        "time": record.timestamp and str(record.timestamp),
        "observed": str(record.observed_timestamp or time.time_ns()),
        "severity": severity_of(given),
        "severity_text": plain.text(record.severity_text or ""),
        "event_name": plain.text(record.event_name or ""),
        "trace_id": record.trace_id and format(record.trace_id, "032x"),
        "span_id": record.span_id and format(record.span_id, "016x"),
        "flags": record.trace_flags and int(record.trace_flags),
        "attributes": plain.attributes(record.attributes or {}),
        "resource": resource and origins.resource(resource),
        "scope": scope and origins.scope(scope),
    }
    data = {name: value for name, value in data.items() if value}
    if record.body is not None:
        data["body"] = plain.value(record.body)
    if dropped := given.dropped_attributes + plain.cut:
        data["dropped_attributes"] = dropped
    return data
