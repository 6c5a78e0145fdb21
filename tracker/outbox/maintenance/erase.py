"""Erasing a user's data: markers replace it, and events name the erased events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tracker import canonical
from tracker.erasure import ERASED, subject_of
from tracker.errors import ValidationError
from tracker.events import COMPLIANCE_ERASED, make_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

MOST = 200
"""Events erased, and named by one event, in one transaction: some milliseconds of work."""

_ID_BYTES = len('"01990000-0000-7000-8000-000000000000",')

# An event without a user belongs to the users of its conversation.
_FIND = """
SELECT event_id FROM events
WHERE type != ? AND (user_id = ? OR (user_id IS NULL AND session_id IN (
          SELECT session_id FROM events WHERE user_id = ?)))
      AND data != ?
ORDER BY seq
"""


def is_known(connection: Connection, user_id: str) -> bool:
    """Return True if any event names the user, erased or not."""
    query = "SELECT 1 FROM events WHERE user_id = ? LIMIT 1"
    return connection.exec_driver_sql(query, (user_id,)).first() is not None


def find(connection: Connection, user_id: str) -> list[str]:
    """Return the ids of the stored events about a user that are not erased yet, in order.

    These are the events that name the user, and those that name no user but a conversation in which
    another event names the user. Reads the whole outbox once, without making anybody wait.
    """
    rows = connection.exec_driver_sql(_FIND, (COMPLIANCE_ERASED, user_id, user_id, ERASED))
    return list(rows.scalars())


class Erasable(Protocol):
    """The parts of an outbox that an erasure needs."""

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a connection for a long read."""

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in a write transaction."""


def erase(
    outbox: Erasable, user_id: str, said: Mapping[str, Any], max_bytes: int
) -> tuple[int, list[str]]:
    """Replace all data about a user by markers, and log events that name what was erased.

    It works in chunks, so a logging call waits for one of them at most. If it is interrupted, what
    was erased by then is named; a second call does the rest.

    Args:
        outbox: The outbox.
        user_id: The user.
        said: Further fields of the erasure events, such as the reason.
        max_bytes: The size limit for one event.

    Returns:
        How many events were erased, and the ids of the events that name them.

    Raises:
        OutboxError: if the outbox cannot be read or written.
        ValidationError: if `said` is so long that an erasure event has no room for event ids.
    """
    with outbox.snapshot() as connection:
        found = find(connection, user_id)
    erased, named_by = 0, []
    for job in jobs(found, user_id, said, max_bytes):
        count, event_id = outbox.run(job)
        erased += count
        named_by.append(event_id)
    return erased, named_by


def jobs(
    event_ids: Sequence[str], user_id: str, said: Mapping[str, Any], max_bytes: int
) -> Iterator[Callable[[Transaction], tuple[int, str]]]:
    """Yield the jobs that erase these events, each with an event that names what it erased.

    Both happen in one transaction, so that no marker is ever without such an event. There is at
    least one job: it is also recorded if there was nothing to erase. A job returns how many events
    it erased, and the id of its event.

    Args:
        event_ids: The events to erase.
        user_id: The user that they are about.
        said: Further fields of the erasure events, such as the reason.
        max_bytes: The size limit for one event.

    Raises:
        ValidationError: if `said` is so long that an erasure event has no room for event ids.
    """
    fields = {**said, "subject": subject_of(user_id)}
    bare = make_event(COMPLIANCE_ERASED, {**fields, "event_ids": []}, max_bytes=max_bytes)
    whole = canonical.envelope(*bare[:-1])
    most = min(MOST, (max_bytes - len(whole.encode())) // _ID_BYTES)
    if most < 1:
        raise ValidationError("reason", "leaves an event no room to name what is erased")
    for start in range(0, max(1, len(event_ids)), most):
        yield _job(event_ids[start : start + most], fields, max_bytes)


def _job(
    event_ids: Sequence[str], fields: Mapping[str, Any], max_bytes: int
) -> Callable[[Transaction], tuple[int, str]]:
    def job(transaction: Transaction) -> tuple[int, str]:
        connection = transaction.connection
        erased = [event_id for event_id in event_ids if _erase(connection, event_id)]
        event = make_event(COMPLIANCE_ERASED, {**fields, "event_ids": erased}, max_bytes=max_bytes)
        transaction.append(event)
        if erased:
            connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 2")
        return len(erased), event.event_id

    return job


def _erase(connection: Connection, event_id: str) -> bool:
    """Replace an event's data by the marker; return False if the event was removed meanwhile."""
    changed = connection.exec_driver_sql(
        # The server's message about a dead letter may quote its data.
        "UPDATE events SET data = ?, dead_message = CASE WHEN dead_at_ms IS NOT NULL "
        "THEN 'erased' END WHERE event_id = ? AND data != ?",
        (ERASED, event_id, ERASED),
    ).rowcount
    return bool(changed)
