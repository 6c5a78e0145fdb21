"""The record of changes to API keys."""

from __future__ import annotations

import os
import pwd
import time
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import insert, select

from tracker.collector.key_tables import key_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.collector.store import Store

CHANNEL = "tracker_keys"
"""Where PostgreSQL notifies those who listen that some key has changed; there is no payload."""
_PAGE = 1_000


class Change(NamedTuple):
    """A change to a key.

    Attributes:
        change: ``created``, ``rotated`` or ``revoked``.
        key_id: Its number.
        client_id: Its client; None for an operator's key.
        detail: What else there is to say, or None.
        changed_at_ms: When it was, Unix milliseconds.
        changed_by: The user of the operating system who ran the command.
    """

    change: str
    key_id: int
    client_id: str | None
    detail: str | None
    changed_at_ms: int
    changed_by: str


def record(connection: Connection, changes: Sequence[Change]) -> None:
    """Note changes, in the transaction that makes them."""
    if not changes:
        return
    rows = [{**each._asdict(), "client_id": each.client_id or ""} for each in changes]
    connection.execute(insert(key_changes), rows)


def recorded(store: Store, client_id: str | None = None) -> Iterator[Change]:
    """Yield all changes in order, of one client or of all keys.

    Raises:
        StorageError: if the database fails.
    """
    columns = key_changes.c
    query = select(columns.id, *(columns[name] for name in Change._fields)).order_by(columns.id)
    if client_id is not None:
        query = query.where(columns.client_id == client_id)
    after = 0
    while True:
        with store.reading() as connection:
            rows = connection.execute(query.where(columns.id > after).limit(_PAGE)).all()
        for number, change, key_id, whose, *others in rows:
            after = number
            yield Change(change, key_id, whose or None, *others)
        if len(rows) < _PAGE:
            return


def change_now(change: str, key_id: int, client_id: str | None, detail: str | None) -> Change:
    """Return a change of this moment, by the user of this process."""
    return Change(change, key_id, client_id, detail, time.time_ns() // 1_000_000, user_name())


def user_name() -> str:
    """Return the name of the user whose process this is; his number if he has none."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
