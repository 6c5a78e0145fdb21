"""Erasing a user's data: markers replace it, and events name the erased events."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from tracker import canonical
from tracker.erasure import ERASED
from tracker.errors import ValidationError
from tracker.events import COMPLIANCE_ERASED, Event, make_event, size_of
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

MOST = 200
"""Events erased, and named by one event, in one transaction: some milliseconds of work."""

_ID_BYTES = len('"01990000-0000-7000-8000-000000000000",')


def is_known(connection: Connection, user_id: str) -> bool:
    """Return True if any event names the user, erased or not."""
    from tracker.queries import source, subject  # for erasures only

    return subject.is_known(connection, source.EVENTS, user_id)


class Erasable(Protocol):
    """The parts of an outbox that an erasure needs."""

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a connection for a long read."""

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in a write transaction."""


class Erased(NamedTuple):
    """What was erased: how many events, by which events, and how many had a digest without salt."""

    erased: int = 0
    event_ids: tuple[str, ...] = ()
    guessable: int = 0


def erase(outbox: Erasable, user_id: str, said: Mapping[str, Any], max_bytes: int) -> Erased:
    """Replace all data about a user by markers, and log events that name what was erased.

    It works in chunks, so a logging call waits for one of them at most. If it is interrupted, what
    was erased by then is named; a second call does the rest.

    Args:
        outbox: The outbox.
        user_id: The user.
        said: Further fields of the erasure events: the subject, and perhaps a reason.
        max_bytes: The size limit for one event.

    Raises:
        OutboxError: if the outbox cannot be read or written.
        ValidationError: if `said` is so long that an erasure event has no room for event ids.
    """
    from tracker.queries import source, subject  # for erasures only

    with outbox.snapshot() as connection:
        found = subject.find(connection, source.EVENTS, user_id)
    done = [outbox.run(job) for job in jobs(found, said, max_bytes)]
    return Erased(
        sum(each.erased for each in done),
        tuple(event_id for each in done for event_id in each.event_ids),
        sum(each.guessable for each in done),
    )


def jobs(
    event_ids: Sequence[str], said: Mapping[str, Any], max_bytes: int
) -> Iterator[Callable[[Transaction], Erased]]:
    """Yield the jobs that erase these events, each with an event that names what it erased.

    There is at least one job: it is also recorded if there was nothing to erase.

    Args:
        event_ids: The events to erase.
        said: Further fields of the erasure events, such as the subject.
        max_bytes: The size limit for one event.

    Raises:
        ValidationError: if `said` is so long that an erasure event has no room for event ids.
    """
    bare = make_event(COMPLIANCE_ERASED, {**said, "event_ids": []}, max_bytes=max_bytes)
    # An id may be named twice.
    most = min(MOST, (max_bytes - size_of(bare) - len('"unsalted":[],')) // (2 * _ID_BYTES))
    if most < 1:
        raise ValidationError("reason", "leaves an event no room to name what is erased")
    for start in range(0, max(1, len(event_ids)), most):
        yield _job(event_ids[start : start + most], said, max_bytes)


def _job(
    event_ids: Sequence[str], said: Mapping[str, Any], max_bytes: int
) -> Callable[[Transaction], Erased]:
    def job(transaction: Transaction) -> Erased:
        connection = transaction.connection
        rows = [_read(connection, event_id) for event_id in event_ids]
        found = [event for event in rows if event is not None]
        for event in found:
            _erase(connection, event)
        fields = {**said, "event_ids": [event.event_id for event in found]}
        unsalted = [event.event_id for event in found if event.salt is None]
        if unsalted:
            fields["unsalted"] = unsalted
        naming = make_event(COMPLIANCE_ERASED, fields, max_bytes=max_bytes)
        transaction.append(naming)
        if found:
            connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 2")
        return Erased(len(found), (naming.event_id,), len(unsalted))

    return job


def _read(connection: Connection, event_id: str) -> Event | None:
    """Return an event that is to be erased; None if it was erased or removed meanwhile."""
    row = connection.exec_driver_sql(
        f"SELECT {tables.EVENT} FROM events WHERE event_id = ? AND data != ?", (event_id, ERASED)
    ).first()
    return None if row is None else Event(*row)


def _erase(connection: Connection, event: Event) -> None:
    """Replace an event's data and user by the marker and, if it has a salt, their commitments."""
    try:
        sealed = event.salt and canonical.seal(event.user_id, event.data, event.salt)
    except (TypeError, AttributeError):  # damaged: it matches its digest neither before nor after
        sealed = bytes(64)
    connection.exec_driver_sql(
        # The server's message about a dead letter may quote its data.
        "UPDATE events SET data = ?, salt = NULL, sealed = ?, "
        "user_id = CASE WHEN ? THEN user_id END, "
        "dead_message = CASE WHEN dead_at_ms IS NOT NULL THEN 'erased' END WHERE event_id = ?",
        (ERASED, sealed, sealed is None, event.event_id),
    )
