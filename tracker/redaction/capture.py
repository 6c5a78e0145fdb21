"""With ``capture_content=False``: replacement of content by sizes and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.events import OTEL, VOCABULARY
from tracker.redaction import telemetry
from tracker.redaction.sizes import size

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = frozenset({
    "content", "arguments", "result", "error", "error_message", "user_feedback", "comment",
    "reason", "input", "output",
})  # fmt: skip
"""Fields of an event that are replaced as a whole."""
MAPPINGS = frozenset({"metadata", "details", "attributes"})
"""Fields whose keys are kept and whose values are replaced."""
NO_CONTENT = {
    "function.observed": frozenset({
        "name", "items", "error_type", "traceback", "duration_ms", "call_id", "parent_call_id",
        "depth",
    }),
    "log.recorded": frozenset({"level", "logger"}),
}  # fmt: skip
"""Fields of what the SDK gathers by itself that are kept: a traceback has no content then."""
KEPT = ("security.", "compliance.")
"""Types of events that are evidence: they keep their content."""


def without_content(type: str, data: dict[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with its content replaced by the sizes of `original`."""
    if type.startswith(KEPT):
        return data
    if type in OTEL:
        return telemetry.without_content(data)
    if type not in VOCABULARY:  # another type: everything but the names may be content
        kept = NO_CONTENT.get(type, ())
        named = zip(data.items(), original.values(), strict=True)
        return {name: value if name in kept else size(given) for (name, value), given in named}
    return {name: _reduced(name, value, original[name]) for name, value in data.items()}


def _reduced(name: str, value: object, original: object) -> object:
    if name in MAPPINGS and isinstance(value, dict) and isinstance(original, dict):
        # The keys are masked, in the order of the original ones.
        return dict(zip(value, map(size, original.values()), strict=True))
    return size(original) if name in TEXTS or name in MAPPINGS else value
