"""What an erasure leaves in the place of an event's data, and what is told of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tracker import canonical

ERASED = '{"erased":true}'
"""The `data` of an erased event, as canonical JSON text."""


@dataclass(frozen=True)
class ErasureResult:
    """What `ComplianceTracker.erase_subject` did.

    Attributes:
        subject: SHA-256 of the user id, 64 hex digits: what the ``compliance.erased`` events call
            the user.
        erased: How many events had data that is now erased.
        event_ids: Ids of the ``compliance.erased`` events that name them: one for up to 200
            events, fewer where an event has less room, and one if there was nothing to erase.
        scrubbed: Whether no trace of the old data is left in the outbox's files. If not, another
            program reads an old state of the outbox, or the disk is full; the log says which, and
            the tracker tries again within an hour of uploading, and at the next erasure. False too
            while damaged files lie aside (`Health.damaged_sets`): no erasure reaches what they
            hold; delete them. It does not speak of an old file that a program still reads after a
            copy took its place: that is gone when the program ends.
    """

    subject: str
    erased: int = 0
    event_ids: tuple[str, ...] = ()
    scrubbed: bool = True


def subject_of(user_id: str) -> str:
    """Return what stands for a user in erasure events: the SHA-256 of the id, in hex.

    Always, for no program can tell a personal id from another, and these events stay for years.
    """
    return hashlib.sha256(user_id.encode()).hexdigest()


def named_events(data: str) -> list[str]:
    """Return the event ids that a ``compliance.erased`` event's data names; none if it is odd."""
    try:
        named = canonical.decode(data)["event_ids"]
    except (ValueError, TypeError, KeyError):
        return []
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
