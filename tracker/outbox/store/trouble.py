"""`StorageTrouble`: why the outbox could not be written when that was last tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox.schema.errors import is_disk_full

if TYPE_CHECKING:
    from tracker.errors import OutboxError


class StorageTrouble:
    """What `health` tells of storage, and whether there is a full disk to deal with.

    Attributes:
        said: The error's text; None if the last write succeeded.
        disk_full: Whether the disk was full, until there is room again.
    """

    def __init__(self) -> None:
        self.said: str | None = None
        self.disk_full = False

    def note(self, error: OutboxError) -> None:
        """Note a write that failed."""
        self.said = str(error)
        self.disk_full = self.disk_full or is_disk_full(error)
