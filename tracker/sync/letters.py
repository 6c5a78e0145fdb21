"""From an answer to dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox import DeadLetter

if TYPE_CHECKING:
    from tracker.outbox import Batch
    from tracker.sync.destination import Delivery


def letters_of(batch: Batch, delivery: Delivery) -> list[DeadLetter]:
    """Return the events of a delivered batch that were rejected, as dead letters."""
    reasons = {item.event_id: item for item in delivery.rejected}
    return [
        DeadLetter(row.seq, reasons[row.event_id].code, reasons[row.event_id].message)
        for row in batch.rows
        if row.event_id in reasons
    ]
