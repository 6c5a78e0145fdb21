"""Which key the chain is made with, as the outbox remembers it: a number that identifies the key.

It is stored in SQLite's ``user_version``, which is free for applications to use: part of the file's
header, so that outboxes of all revisions have it. The key itself is stored nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import canonical, log
from tracker.outbox.integrity.chain import KeyMemory
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

_FROM_START = 1 << 30
"""The bit above those of `canonical.key_check`: there was a key from the first event on."""


def read(connection: Connection) -> KeyMemory:
    """Return what the outbox remembers about chain keys."""
    number = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return KeyMemory(number & ~_FROM_START, bool(number & _FROM_START))


def remember(key: bytes) -> Callable[[Transaction], None]:
    """Return the job that records the key that the chain is made with from now on."""
    check = canonical.key_check(key)

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        from_start = read(connection).from_start or ledger.last_seq(connection) == 0
        number = check | (_FROM_START if from_start else 0)
        connection.exec_driver_sql(f"PRAGMA user_version={number}")

    return job


def warn(path: Path, key: bytes | None, remembered: KeyMemory) -> None:
    """Log a warning if an outbox is opened with another key than before."""
    if remembered.check in (0, canonical.key_check(key)):
        return
    if key is None:
        log.warning(
            "the chain of the outbox %s was made with a chain key, but none is configured: events "
            "are stored, but `tracker-sync verify` will report those of this process. Set "
            "SDK_CHAIN_KEY",
            path,
        )
    else:
        log.warning(
            "the chain of the outbox %s continues with another chain key than before; keep the "
            "former one for `tracker-sync verify --chain-key-file`",
            path,
        )
