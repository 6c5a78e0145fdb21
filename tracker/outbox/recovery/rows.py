"""Rows of another outbox, damaged or deleted, in the form in which they are carried over."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracker.events import Event
from tracker.outbox.schema import tables

# Every revision of the schema so far has these columns, in this order; later ones are added after.
_COLUMNS = [column.name for column in tables.events.columns]
FEWEST = _COLUMNS.index("data") + 1
"""Columns of a row that was stored before any was added."""
_EVENT_COLUMNS = [_COLUMNS.index(name) for name in Event._fields]
_STATE_COLUMNS = [
    _COLUMNS.index(name) for name in ("delivered_at_ms", "dead_at_ms", "dead_code", "dead_message")
]
_CHAIN = _COLUMNS.index("chain")
_LEAST_TIME_MS = 2
"""0 and 1 take no bytes in a record, so one flipped bit can turn a NULL into either of them."""


class Row(NamedTuple):
    """One event as an outbox had it, with its seq there, its state, and its chain value."""

    seq: int
    event: Event
    delivered_at_ms: int | None
    dead_at_ms: int | None
    dead_code: str | None
    dead_message: str | None
    chain: object

    @property
    def pending(self) -> bool:
        """Whether it is pending."""
        return self.delivered_at_ms is None and self.dead_at_ms is None

    @property
    def skipped(self) -> bool:
        """Whether it was settled without being sent."""
        return self.delivered_at_ms is not None and self.dead_code == tables.SKIPPED


def make_row(seq: int, values: list[Any]) -> Row:
    """Return the row with these values of the columns, `FEWEST` or more, of any type."""
    values = values + [None] * (len(_COLUMNS) - len(values))
    delivered, dead, code, message = (values[place] for place in _STATE_COLUMNS)
    was_delivered, is_dead = is_time(delivered), is_time(dead)
    return Row(
        seq,
        Event(*(values[place] for place in _EVENT_COLUMNS)),
        delivered if was_delivered else None,
        dead if is_dead and not was_delivered else None,
        str(code) if (is_dead and code is not None) or _was_skipped(delivered, code) else None,
        str(message) if is_dead and message is not None else None,
        values[_CHAIN],
    )


def _was_skipped(delivered: object, code: object) -> bool:
    return is_time(delivered) and code == tables.SKIPPED


def is_time(value: object) -> bool:
    """Return True if a value can be a time in milliseconds, not a NULL with one flipped bit."""
    return isinstance(value, int) and value >= _LEAST_TIME_MS
