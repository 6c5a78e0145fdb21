"""`StorageTrouble`: what went wrong last, and whether the disk was full."""

from __future__ import annotations

from tracker.errors import OutboxError
from tracker.outbox.store.trouble import StorageTrouble

FULL = OutboxError("the outbox failed: database or disk is full")
LOCKED = OutboxError("the outbox failed: database is locked")


def test_a_full_disk_is_remembered_whatever_fails_after_it() -> None:
    """Until there is room again, room is made; what is said is the newest error."""
    trouble = StorageTrouble()
    trouble.note(LOCKED)
    assert (trouble.said, trouble.disk_full) == (str(LOCKED), False)
    trouble.note(FULL)
    assert (trouble.said, trouble.disk_full) == (str(FULL), True)
    trouble.note(LOCKED)
    assert (trouble.said, trouble.disk_full) == (str(LOCKED), True)
