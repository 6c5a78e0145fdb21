"""`StorageTrouble`: why the last attempt to write to the outbox failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox.schema.errors import is_disk_full

if TYPE_CHECKING:
    from tracker.errors import OutboxError


class StorageTrouble:
    """What `health` reports about storage, and whether the disk was full.

    Attributes:
        said: The text of the error; None if the last write succeeded.
        disk_full: Whether the disk was full, until there is room again.
    """

    def __init__(self) -> None:
        self.said: str | None = None
        self.disk_full = False

    def note(self, error: OutboxError) -> None:
        """Record a write that failed."""
        self.said = str(error)
        self.disk_full = self.disk_full or is_disk_full(error)
