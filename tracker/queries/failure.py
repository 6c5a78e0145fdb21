"""`Failure`: why a span of OpenTelemetry failed, as the span itself says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.queries.conversations import fields, text

if TYPE_CHECKING:
    from collections.abc import Mapping


class Failure(NamedTuple):
    """Why a span failed.

    Attributes:
        error: What its status says, or else its last exception, or else ``"error"``.
        error_type: The type of the exception.
        traceback: The exception's traceback.
    """

    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None


def failure_of(data: Mapping[str, Any]) -> Failure | None:
    """Return why the span of an ``otel.span`` event failed; None if its status is no error."""
    status, attributes = fields(data.get("status")), fields(data.get("attributes"))
    if status.get("code") != "error":
        return None
    raised = _raised(data.get("events"))
    return Failure(
        text(status.get("message")) or text(raised.get("exception.message")) or "error",
        text(attributes.get("error.type")) or text(raised.get("exception.type")),
        text(raised.get("exception.stacktrace")),
    )


def _raised(events: object) -> dict[str, Any]:
    """Return what the last exception among a span's own events was."""
    for event in reversed(events if isinstance(events, list) else []):
        if fields(event).get("name") == "exception":
            return fields(event.get("attributes"))
    return {}
