"""`EventContext`: the context of a tracker's events as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.context_items import merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker.context import Added
    from tracker.redaction.redactor import Redactor


class EventContext:
    """The context of a tracker's events. Any thread may use it.

    Args:
        base: The items of every event.
        redactor: Masks the context like an event's data.

    Attributes:
        text: The context of events outside all blocks as canonical JSON, or None if there is none.
    """

    def __init__(self, base: Mapping[str, Any], redactor: Redactor) -> None:
        self._base = base
        self._redactor = redactor
        self.text = self._encode(self._base)
        self._last: tuple[object, str | None] = (None, None)

    def within(self, block: Added) -> str | None:
        """Return the context of events in a block that adds items, as canonical JSON, or None."""
        last, text = self._last  # one block has many events
        if last is not block:
            text = self._encode(merged(self._base, block.items))
            self._last = (block, text)
        return text

    def _encode(self, items: Mapping[str, Any]) -> str | None:
        kept = {name: value for name, value in items.items() if value not in (None, {})}
        return canonical.encode(self._redactor.masked(kept)) if kept else None
