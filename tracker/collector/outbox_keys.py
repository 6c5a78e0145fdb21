"""The keys of devices: the first that signs a head of an outbox is bound to it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import insert, select

from tracker.collector.tables import outbox_keys
from tracker.evidence.note import device_key
from tracker.evidence.verifier import Key, parse_key

if TYPE_CHECKING:
    from sqlalchemy import Connection

Reason = Literal["first", "changed", "operator"]
"""Why a key is bound: it was the first, the one before signed it, or an operator said so."""


class BoundKey(NamedTuple):
    """A key that is or was bound to an outbox."""

    client_id: str
    key: str
    reason: str
    bound_at_ms: int


def parse(outbox_id: str, text: str) -> Key:
    """Return the key of an outbox that a person gave: a verifier key, or its 64 hex digits.

    Raises:
        ValueError: if it is neither, or a key of something else.
    """
    if re.fullmatch("[0-9a-f]{64}", text):
        return device_key(outbox_id, bytes.fromhex(text))
    key = parse_key(text)
    if key != device_key(outbox_id, key.public_key):
        raise ValueError("this is not a key of this outbox")
    return key


def history(connection: Connection, outbox_id: str) -> list[BoundKey]:
    """Return all keys of an outbox; the last one counts."""
    query = (
        select(*(outbox_keys.c[name] for name in BoundKey._fields))
        .where(outbox_keys.c.outbox_id == outbox_id)
        .order_by(outbox_keys.c.id)
    )
    return [BoundKey(*row) for row in connection.execute(query)]


def current(connection: Connection, outbox_id: str) -> Key | None:
    """Return the key that is bound to an outbox, or None if there is none yet."""
    query = (
        select(outbox_keys.c.key)
        .where(outbox_keys.c.outbox_id == outbox_id)
        .order_by(outbox_keys.c.id.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar()
    return None if found is None else parse_key(found)


def bind(connection: Connection, client_id: str, outbox_id: str, key: Key, reason: Reason) -> None:
    """Bind a key to an outbox from now on."""
    values = {
        "client_id": client_id,
        "outbox_id": outbox_id,
        "key": str(key),
        "reason": reason,
        "bound_at_ms": time.time_ns() // 1_000_000,
    }
    connection.execute(insert(outbox_keys).values(**values))
