"""Backups: a copy of an outbox that is marked as one, and a new outbox restored from it.

A copy that passed for the original would upload the same events under the same outbox id, and then
assign the same seqs to other events. So a backup neither uploads nor accepts events, and an outbox
restored from one has another outbox id.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker import canonical, ownership
from tracker.errors import ConfigurationError, OutboxError
from tracker.outbox.files import paths
from tracker.outbox.integrity import chain_key
from tracker.outbox.recovery.continuation import copy
from tracker.outbox.schema import create
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import ledger
from tracker.whole_file import publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


def made_at_ms(connection: Connection) -> int | None:
    """Return when the outbox was copied from another as a backup; None if it is not a backup."""
    found: int | None = connection.exec_driver_sql(
        "SELECT events FROM account WHERE entry = ?", (ledger.BACKUP,)
    ).scalar()
    return found


def refuse(connection: Connection, path: Path) -> None:
    """Refuse a backup where an outbox is needed that accepts and uploads events.

    Raises:
        ConfigurationError: if the outbox is a backup.
    """
    if made_at_ms(connection) is not None:
        raise ConfigurationError(
            f"{path} is a backup: it accepts no events and uploads none. "
            f"`tracker-sync --outbox NEW restore {path}` makes an outbox from it"
        )


def make(connection: sqlite3.Connection, path: Path, like: Path) -> None:
    """Copy the outbox that a connection reads to a new file at `path`.

    Applications may write meanwhile. The copy appears complete or not at all, and has the owner and
    mode of `like`.

    Raises:
        OutboxError: if there is a file at `path` already, or the copy cannot be made.
    """

    def mark(made: Connection) -> None:
        made.exec_driver_sql(
            "INSERT OR REPLACE INTO account (entry, events) VALUES (?, ?)",
            (ledger.BACKUP, time.time_ns() // 1_000_000),
        )

    _copy_to(connection, path, like, mark)


def restore(connection: sqlite3.Connection, path: Path, key: bytes | None) -> None:
    """Make an outbox at `path`, with a new outbox id, from the backup that a connection reads.

    Args:
        connection: To the backup.
        path: The outbox to make.
        key: The chain key, under which what the backup proves is proven in the outbox too.

    Raises:
        OutboxError: if there is a file at `path` already, or it cannot be made.
    """
    from tracker.outbox.recovery import rebuild  # seldom used, and every start imports this module

    def rename(made: Connection) -> None:
        create.bring_up_to_date(made.engine, "", "")  # it may have an older schema
        rebuild.in_transaction(made, key, lambda transaction: _rename(transaction, path, key))

    _copy_to(connection, path, path, rename)


def _rename(transaction: Transaction, path: Path, key: bytes | None) -> None:
    from tracker.outbox.integrity import renewal  # seldom used

    remembered = chain_key.read(transaction.connection)
    if remembered.check not in (0, canonical.key_check(key)):
        chain_key.warn(path, key, remembered)
    transaction.connection.exec_driver_sql("DELETE FROM account WHERE entry = ?", (ledger.BACKUP,))
    renewal.rename(transaction, key)


def _copy_to(
    connection: sqlite3.Connection, path: Path, like: Path, change: Callable[[Connection], None]
) -> None:
    if not path.name:
        raise OutboxError(f"{str(path)!r} names no file; give the path of one")
    taken = [path, *(paths.beside(path, companion) for companion in paths.COMPANIONS)]
    for each in taken:
        if os.path.lexists(each):
            raise OutboxError(f"{each} exists; give another name, or move it away")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.close(ownership.create(draft, like))
        copy(connection, draft)
        with make_engine(draft.absolute(), "full", writer=True).connect() as made:
            change(made)
            made.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        publish(draft, path)
    except FileExistsError:
        raise OutboxError(f"{path} exists; give another name, or move it away") from None
    except (sqlite3.Error, SQLAlchemyError, OSError) as error:
        raise OutboxError(f"{path} cannot be made: {error}") from error
    finally:
        for companion in ("", paths.JOURNAL, *paths.COMPANIONS):
            paths.beside(draft, companion).unlink(missing_ok=True)
