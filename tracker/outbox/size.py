"""`SizeBound`: keeping an outbox to `max_outbox_bytes`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tracker.errors import OutboxFullError
from tracker.outbox import retention

if TYPE_CHECKING:
    from tracker.config import APIConfig
    from tracker.outbox.outbox import Outbox

_CHECK_EVERY = 64
"""Events between two looks at the outbox's size."""
_LOOK_AGAIN_SECONDS = 1.0
"""How long a full outbox is taken for full without another look."""


class SizeBound:
    """Makes room in an outbox that has grown to its bound, or says that there is none.

    Args:
        outbox: The outbox, which owns this.
        config: Its settings; `max_outbox_bytes` and `outbox_full` are used here.
    """

    def __init__(self, outbox: Outbox, config: APIConfig) -> None:
        self._outbox = outbox
        self._most = config.max_outbox_bytes
        self._refuses = config.outbox_full == "refuse"
        self._until_check = 0
        self._full: OutboxFullError | None = None
        self._look_again_at = 0.0

    def check(self, events: int) -> None:
        """See that there is room for so many events, looking only now and then.

        Raises:
            OutboxFullError: if there is none and the policy is to refuse.
        """
        if self._most is None:
            return
        if self._full and time.monotonic() < self._look_again_at:
            raise self._full
        if self._until_check > 0 and not self._full:
            self._until_check -= events
            return
        self._until_check = _CHECK_EVERY - (events - 1)
        self._full = None
        if self._oversized() and not self._make_room():
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
            self._full = OutboxFullError(
                f"the outbox {self._outbox.path} has reached max_outbox_bytes "
                f"({self._most:,}) with undelivered events only"
            )
            raise self._full

    def _make_room(self) -> bool:
        """Remove delivered events, then what the policy gives up; tell whether there is room."""
        self.free_delivered()
        while self._oversized():
            if self._refuses or not self._outbox.run(retention.discard_oldest):
                return False
        return True

    def _oversized(self) -> bool:
        with self._outbox.reading() as connection:
            used = retention.used_bytes(connection)
        return used > (self._most or 0)

    def free_delivered(self) -> None:
        """Remove all delivered events that may go, and shrink the file."""
        removed, after = 0, 0
        while after >= 0:
            some, after = self._outbox.run(retention.free_delivered(after))
            removed += some
        if removed:
            self.shrink()

    def shrink(self) -> None:
        """Return the file's free pages to the file system."""
        free = -1
        while True:
            self._outbox.run(retention.give_back_pages)
            with self._outbox.reading() as connection:
                left = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            if left in (0, free):
                return
            free = left
