"""Another outbox id, for a copy of an outbox, or for one of which another copy has sent.

Under one id, a receiver must not get different events with the same seq. Nothing is lost by a new
one: what is pending is sent under it, and receivers deduplicate by event id.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from tracker import canonical
from tracker.discards import runs, without
from tracker.events import SECURITY_REPORTED, make_event
from tracker.outbox.integrity import chain_key, proofs
from tracker.outbox.store import discards, identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.outbox.store.transaction import Transaction

_DAY_MS = 86_400_000
_FORGET = "UPDATE tree SET witness = NULL, head_seq = NULL, head_ms = NULL"
_NOTE_TIME = """
INSERT INTO tree (id, frontier, renewed_ms) VALUES (1, zeroblob(8), ?)
ON CONFLICT (id) DO UPDATE SET renewed_ms = excluded.renewed_ms
"""


def rename(transaction: Transaction, key: bytes | None) -> tuple[str, str]:
    """Give an outbox another id; return the former one and the new one.

    What is not pending is never sent under the new id. An event says so, unless it would break the
    chain because the key is not given.
    """
    connection = transaction.connection
    former, new_id = identity.read(connection).outbox_id, str(uuid.uuid4())
    connection.exec_driver_sql(
        "UPDATE identity SET outbox_id = ?, created_at_ms = ?",
        (new_id, time.time_ns() // 1_000_000),
    )
    proofs.renew(connection, key, former, new_id)
    connection.exec_driver_sql(_FORGET)
    if chain_key.read(connection).check in (0, canonical.key_check(key)):
        undelivered = connection.exec_driver_sql(
            "SELECT seq FROM events WHERE delivered_at_ms IS NULL ORDER BY seq"
        ).scalars()
        if gone := without([(1, transaction.head[0])], runs(undelivered)):
            discards.name(transaction, discards.CARRIED_OVER, gone)
    return former, new_id


def renew(reason: str, key: bytes | None) -> Callable[[Transaction], str | None]:
    """Return the job that begins a new outbox id and logs it; it returns the id.

    It happens at most once in 24 hours, and the job returns None otherwise: a receiver that warns
    whatever the id must not fill the outbox with reports of it.

    Args:
        reason: The warning of the receipt, such as ``forked``.
        key: The chain key.
    """

    def job(transaction: Transaction) -> str | None:
        connection = transaction.connection
        now = time.time_ns() // 1_000_000
        before = connection.exec_driver_sql("SELECT renewed_ms FROM tree").scalar()
        if before is not None and 0 <= now - before < _DAY_MS:
            return None
        former, new_id = rename(transaction, key)
        connection.exec_driver_sql(_NOTE_TIME, (now,))
        details = {"reason": reason, "former_outbox_id": former, "outbox_id": new_id}
        fields = {"kind": "rolled_back", "severity": "high", "details": details}
        transaction.append(make_event(SECURITY_REPORTED, fields))
        return new_id

    return job
