"""Backups: a copy of an outbox that says that it is one, and an outbox made of a copy.

A copy that took itself for the original would upload the same events under the same outbox id, and
go on with other events under the same seqs. So a backup neither uploads nor takes events, and what
is restored from one has another outbox id.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.errors import ConfigurationError, OutboxError
from tracker.outbox.files import paths, swap
from tracker.outbox.recovery.continuation import copy
from tracker.outbox.sqlite.engine import connect

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from sqlalchemy import Connection

_ENTRY = "backup"
"""Entry of the account by which a backup says when it was made, in Unix milliseconds."""


def made_at_ms(connection: Connection) -> int | None:
    """Return when the outbox was copied from another as a backup; None if it is none."""
    found: int | None = connection.exec_driver_sql(
        "SELECT events FROM account WHERE entry = ?", (_ENTRY,)
    ).scalar()
    return found


def refuse(connection: Connection, path: Path) -> None:
    """Refuse a backup where an outbox is needed that takes and uploads events.

    Raises:
        ConfigurationError: if the outbox is a backup.
    """
    if made_at_ms(connection) is not None:
        raise ConfigurationError(
            f"{path} is a backup: it takes no events and uploads none. "
            f"`tracker-sync --outbox NEW restore {path}` makes an outbox of it"
        )


def make(connection: sqlite3.Connection, path: Path, like: Path) -> None:
    """Copy the outbox that a connection sees to a new file at `path`.

    Applications may write meanwhile. The copy appears whole or not at all, and has the owner and
    mode of `like`.

    Raises:
        OutboxError: if there is a file at `path` already.
        sqlite3.Error, OSError: if it cannot be made.
    """
    _copy_to(
        connection,
        path,
        like,
        [("INSERT OR REPLACE INTO account VALUES (?, ?)", (_ENTRY, time.time_ns() // 1_000_000))],
    )


def restore(connection: sqlite3.Connection, path: Path) -> None:
    """Make an outbox at `path`, under an id of its own, of the backup that a connection sees.

    Raises:
        OutboxError: if there is a file at `path` already.
        sqlite3.Error, OSError: if it cannot be made.
    """
    _copy_to(
        connection,
        path,
        path,
        [
            ("UPDATE identity SET outbox_id = ?", (str(uuid.uuid4()),)),
            ("DELETE FROM account WHERE entry = ?", (_ENTRY,)),
        ],
    )


def _copy_to(
    connection: sqlite3.Connection,
    path: Path,
    like: Path,
    changes: list[tuple[str, tuple[object, ...]]],
) -> None:
    taken = [path, *(paths.beside(path, companion) for companion in paths.COMPANIONS)]
    for each in taken:
        if os.path.lexists(each):
            raise OutboxError(f"{each} exists; give another name, or move it away")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.close(ownership.create(draft, like))
        copy(connection, draft)
        with contextlib.closing(connect(draft.absolute(), "mode=rw")) as made:
            for statement, values in changes:
                made.execute(statement, values)
            made.commit()
            made.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, this never replaces what came there meanwhile
        except FileExistsError:
            raise OutboxError(f"{path} exists; give another name, or move it away") from None
        except OSError:  # FAT and some network file systems have no hard links
            draft.rename(path)
    finally:
        for companion in ("", paths.JOURNAL, *paths.COMPANIONS):
            paths.beside(draft, companion).unlink(missing_ok=True)
    swap.sync_folder(path)
