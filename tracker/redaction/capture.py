"""With ``capture_content=False``: sizes and counts in the place of what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.events import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = frozenset({
    "content", "arguments", "result", "error", "error_message", "user_feedback", "comment",
    "reason",
})  # fmt: skip
"""Fields of an event that are replaced as a whole."""
MAPPINGS = frozenset({"metadata", "details"})
"""Fields of which the keys stay and every value is replaced."""
KEPT = ("security.", "compliance.")
"""Events that are written as evidence: they keep what they say."""


def size(value: object) -> object:
    """Return what can be said of a value without saying it; None, True and False say little."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return f"[not captured: {str.__len__(value)} characters]"
    if isinstance(value, dict):
        return f"[not captured: {len(value)} members]"
    if isinstance(value, (list, tuple)):
        return f"[not captured: {len(value)} items]"
    return "[not captured: number]"


def without_content(type: str, data: dict[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with the sizes that its content has in `original`."""
    if type.startswith(KEPT):
        return data
    if type not in VOCABULARY:  # a free event: all of it may be content, but for the names
        return dict(zip(data, map(size, original.values()), strict=True))
    return {name: _reduced(name, value, original[name]) for name, value in data.items()}


def _reduced(name: str, value: object, original: object) -> object:
    if name in MAPPINGS and isinstance(value, dict) and isinstance(original, dict):
        # The keys come masked; they stand in the order of the originals.
        return dict(zip(value, map(size, original.values()), strict=True))
    return size(original) if name in TEXTS or name in MAPPINGS else value
