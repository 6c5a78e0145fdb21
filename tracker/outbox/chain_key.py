"""Which key the chain is made under, as the outbox remembers it: a number that tells keys apart.

It stands in SQLite's ``user_version``, which belongs to the application: in the file's header, so
that an outbox of any revision has it. The key itself is stored nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import canonical, log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.writer import Transaction


def read(connection: Connection) -> int:
    """Return `canonical.key_check` of the key last used; 0 if there was none."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def remember(key: bytes) -> Callable[[Transaction], None]:
    """Return the job that notes the key that the chain is made under from now on."""
    check = canonical.key_check(key)

    def job(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(f"PRAGMA user_version={check}")

    return job


def warn(path: Path, key: bytes | None, remembered: int) -> None:
    """Log that an outbox is opened with another key than before, if it is."""
    if not remembered or remembered == canonical.key_check(key):
        return
    if key is None:
        log.warning(
            "the chain of the outbox %s was made under a chain key, and none is configured: events "
            "are stored all the same, but `tracker-sync verify` will report those of this process. "
            "Set SDK_CHAIN_KEY",
            path,
        )
    else:
        log.warning(
            "the chain of the outbox %s goes on under another chain key than before; keep the "
            "former one for `tracker-sync verify --chain-key-file`",
            path,
        )
