"""What replaces the data of an erased event, and the result of an erasure."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from tracker.events import Event

ERASED = canonical.ERASED
"""The `data` of an erased event, as canonical JSON text."""


@dataclass(frozen=True)
class ErasureResult:
    """Result of `ComplianceTracker.erase_subject`.

    Attributes:
        subject: SHA-256 of `salt` and the user id, 64 hex digits, which stands for the user in
            ``compliance.erased`` events.
        salt: The salt of `subject`, 32 hex digits. It is stored nowhere: keep it if you have to
            show later whom this erasure concerned, and nobody can find out without it.
        erased: Number of events whose data was erased.
        event_ids: Ids of the ``compliance.erased`` events that name them: one for up to 200
            events, fewer where an event has less room, and one if there was nothing to erase.
        scrubbed: True if no trace of the old data is left in the outbox's files. If not, another
            program reads an old state of the outbox, or the disk is full; the log says which, and
            the tracker retries within an hour of uploading and at the next erasure. False also
            while there are damaged files (`Health.damaged_sets`), which no erasure changes;
            delete them. It does not speak of an old file that a program still reads after a
            copy took its place: that is gone when the program ends.
        guessable: Number of erased events that were stored before digests had a salt. Somebody who
            guesses what such an event contained can recognize it by its digest, which has to stay,
            and its user id stays as well.
    """

    subject: str
    salt: str
    erased: int = 0
    event_ids: tuple[str, ...] = ()
    scrubbed: bool = True
    guessable: int = 0


class Subject(NamedTuple):
    """What stands for a user in erasure events, and the salt that it was made with, both in hex."""

    digest: str
    salt: str


def subject_of(user_id: str) -> Subject:
    """Return what stands for a user in the events of one erasure.

    Every id is hashed, since a program cannot recognize a personal one, and these events stay for
    years. The salt is new for each erasure, so that nobody can try ids.
    """
    salt = os.urandom(canonical.SALT_BYTES)
    return Subject(hashlib.sha256(salt + user_id.encode()).hexdigest(), salt.hex())


def named_events(data: str) -> list[str]:
    """Return the event ids in the data of a ``compliance.erased`` event; none if it is invalid."""
    return _ids(data, "event_ids")


def unsalted_events(event: Event) -> list[str]:
    """Return those that an erasure event names as stored without a salt.

    What is left of such an event does not match its digest, so it must not be believed of any
    other. An erasure event without a salt is from before there were any.
    """
    return _ids(event.data, "event_ids" if event.salt is None else "unsalted")


def _ids(data: str, field: str) -> list[str]:
    try:
        named = canonical.decode(data)[field]
    except (ValueError, TypeError, KeyError):
        return []
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
