"""What replaces the data of an erased event, and the result of an erasure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tracker import canonical

ERASED = '{"erased":true}'
"""The `data` of an erased event, as canonical JSON text."""


@dataclass(frozen=True)
class ErasureResult:
    """Result of `ComplianceTracker.erase_subject`.

    Attributes:
        subject: SHA-256 of the user id as 64 hex digits, which stands for the user in
            ``compliance.erased`` events.
        erased: Number of events whose data was erased.
        event_ids: Ids of the ``compliance.erased`` events that name them: one for up to 200
            events, fewer where an event has less room, and one if there was nothing to erase.
        scrubbed: True if no trace of the old data is left in the outbox's files. If not, another
            program reads an old state of the outbox, or the disk is full; the log says which, and
            the tracker retries within an hour of uploading and at the next erasure. False also
            while there are damaged files (`Health.damaged_sets`), which no erasure changes;
            delete them. It does not speak of an old file that a program still reads after a
            copy took its place: that is gone when the program ends.
    """

    subject: str
    erased: int = 0
    event_ids: tuple[str, ...] = ()
    scrubbed: bool = True


def subject_of(user_id: str) -> str:
    """Return what stands for a user in erasure events: the SHA-256 of the id, in hex.

    Every id is hashed, since a program cannot recognize a personal one, and these events stay for
    years.
    """
    return hashlib.sha256(user_id.encode()).hexdigest()


def named_events(data: str) -> list[str]:
    """Return the event ids in the data of a ``compliance.erased`` event; none if it is invalid."""
    try:
        named = canonical.decode(data)["event_ids"]
    except (ValueError, TypeError, KeyError):
        return []
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
