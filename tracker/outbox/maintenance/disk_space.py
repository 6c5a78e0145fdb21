"""`DiskSpace`: what is done about a full disk, until there is room again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.outbox.schema.errors import is_disk_full

if TYPE_CHECKING:
    from tracker.outbox.maintenance.size_limit import SizeLimit
    from tracker.outbox.store.ballast import Ballast
    from tracker.outbox.store.connections import Connections
    from tracker.outbox.store.trouble import StorageTrouble

_CHECK_AGAIN_SECONDS = 1.0
"""How soon a full disk is checked again."""


class DiskSpace:
    """Removes delivered events from a full disk, and creates the ballast when there is room.

    Args:
        connections: The outbox.
        ballast: Its ballast.
        trouble: Records whether the disk was full.
        size_limit: Removes delivered events.
    """

    def __init__(
        self, connections: Connections, ballast: Ballast, trouble: StorageTrouble,
        size_limit: SizeLimit,
    ) -> None:  # fmt: skip
        self._connections = connections
        self._ballast = ballast
        self._trouble = trouble
        self._size_limit = size_limit

    def maintain(self) -> None:
        """Make room if the disk was full, and create the ballast if it does not exist.

        Raises:
            OutboxError: if the outbox cannot be written, for a reason other than a full disk.
        """
        if self._trouble.disk_full:
            self._free()
        if self._ballast.create():
            self._trouble.disk_full = False
        elif self._trouble.disk_full:
            self._connections.next_check_at = monotonic() + _CHECK_AGAIN_SECONDS

    def _free(self) -> None:
        """Remove delivered events and truncate the log, as far as there is room for that."""
        try:
            self._size_limit.free_delivered()
            self._connections.empty_log()
        except OutboxError as error:
            if not is_disk_full(error):
                raise
