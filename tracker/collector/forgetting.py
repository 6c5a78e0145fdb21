"""Erases the data about a user that this collector holds, without an outbox that asks for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.collector.batch import Batch, ReceivedEvent
from tracker.collector.derived import outbox_id_of
from tracker.collector.seals import packed
from tracker.collector.tables import events_of
from tracker.erasure import subject_of
from tracker.events import COMPLIANCE_ERASED, make_event
from tracker.queries import subject
from tracker.queries.source import portions

if TYPE_CHECKING:
    from tracker.collector.store import Store

_NAMED_TOGETHER = 200
"""Events that one event names, and that are erased in one transaction."""
_MOST_BYTES = 64 * 1024
_SEARCH_SECONDS = 600.0


class Forgotten(NamedTuple):
    """What was erased.

    Attributes:
        erased: Number of events.
        event_ids: Ids of the ``compliance.erased`` events that name them.
        salt: That of the hash that stands for the user there, 32 hex digits; stored nowhere.
    """

    erased: int
    event_ids: tuple[str, ...]
    salt: str


def erase_subject(
    store: Store, client_id: str, user_id: str, reason: str | None = None
) -> Forgotten:
    """Erase all events of a client that are about a user, as `tracker.queries.subject` finds them.

    ``compliance.erased`` events among what came directly name them. What arrives later is stored:
    an outbox that still holds such events has to erase them itself.

    Raises:
        StorageError: if the database fails. What was erased by then is named; a second call does
            the rest.
        ValidationError: if the reason is too long.
    """
    with store.reading(_SEARCH_SECONDS) as connection:
        found = subject.find(connection, events_of(client_id), user_id)
    digest, salt = subject_of(user_id)
    said = {"subject": digest} if reason is None else {"subject": digest, "reason": reason}
    # Made before anything is erased: a reason that is too long erases nothing.
    made = [_event({**said, "event_ids": some}) for some in portions(found, _NAMED_TOGETHER)]
    made = made or [_event({**said, "event_ids": []})]
    for event in made:
        now_ms = time.time_ns() // 1_000_000
        batch = Batch(client_id, outbox_id_of(client_id), now_ms, (event,), (), (), direct=True)
        store.store_batch(batch, now_ms)
    return Forgotten(len(found), tuple(event.event_id for event in made), salt)


def _event(data: dict[str, Any]) -> ReceivedEvent:
    made = make_event(COMPLIANCE_ERASED, data, max_bytes=_MOST_BYTES)
    assert made.salt is not None  # noqa: S101 - every event that is made has one
    fields = (made.event_id, made.type, made.timestamp_ms, None, None, None, made.data)
    return ReceivedEvent(0, *fields, made.digest, "", None, None, packed(made.salt.hex()))
