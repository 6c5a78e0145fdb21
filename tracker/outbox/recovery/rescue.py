"""`Rescue`: saves the events of an outbox that was deleted or replaced while it was open here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker import log
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.recovery.rows import Row
    from tracker.outbox.store.group_commit import GroupCommit
    from tracker.outbox.store.write_connection import WriteConnection


class Rescue:
    """Carries undelivered events from a file that is gone to the one that replaced it.

    They are in memory in between. Only one thread at a time uses it.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, path: Path, old: Connection | None) -> None:
        """Take the undelivered events from the old file of `path`, and log it."""
        log.error(
            "the outbox %s was deleted or replaced while in use; a new one is started with the "
            "undelivered events%s",
            path,
            "" if old else ", but the old one cannot be read any more",
        )
        if old is not None:
            try:
                self._add(undelivered(old))
            except SQLAlchemyError as error:
                log.error("the events of the deleted outbox cannot be read: %s", error)

    def add(self, connection: Connection) -> None:
        """Take the undelivered events from another file that is open.

        Raises:
            SQLAlchemyError: if it cannot be read.
        """
        self._add(undelivered(connection))

    def _add(self, rows: Iterable[Row]) -> None:
        """Add rows, each event once.

        A file that was deleted just after rows had been stored in it gives them back, and the
        caller that stored them may not have been told.
        """
        for row in rows:
            self._rows.setdefault(row.event.event_id, row)

    def store(self, writer: GroupCommit[WriteConnection]) -> None:
        """Write them into the new file.

        Raises:
            OutboxError: if they cannot be written; all of them stay in memory.
        """
        if self._rows:
            from tracker.outbox.recovery import rebuild

            rows = list(self._rows.values())
            count = writer.run(lambda transaction: rebuild.carry_over(transaction, rows))
            for row in rows:
                self._rows.pop(row.event.event_id, None)
            if count:
                log.warning(
                    "%d undelivered events were carried over from the deleted outbox", count
                )


_ALL = f"SELECT {', '.join(tables.events.columns.keys())} FROM events WHERE "  # noqa: S608 - our own names
_UNDELIVERED = (
    "delivered_at_ms IS NULL "
    "AND seq > min((SELECT settled_through FROM sync_state), "
    "coalesce((SELECT min(seq) FROM events WHERE dead_at_ms IS NOT NULL), 1 << 62) - 1)"
)


def undelivered(connection: Connection) -> list[Row]:
    """Return the undelivered events that a connection sees, whole rows only."""
    # The modules of a salvage: needed only if a file is gone.
    from tracker.outbox.recovery import rows as salvaged_rows
    from tracker.outbox.recovery.candidates import FoundRows, Place

    def rows(condition: str, *bound: int) -> Iterator[Row]:
        for values in connection.exec_driver_sql(_ALL + condition, bound):
            yield salvaged_rows.make_row(values[0], list(values))

    # In memory, like the rows themselves: none of them may be lost because the disk is full.
    with contextlib.closing(FoundRows(in_memory=True)) as found:
        for row in rows("type = 'compliance.erased'"):
            if row.event.is_intact:
                found.note_erasures(row.event)
        for row in rows(_UNDELIVERED):
            found.add(Place(0, 0, row.seq), row.event, delivered=False)
        found.choose()
        return [row for place in found.chosen() for row in rows("seq = ?", place.seq)]
