"""Backups: a copy of an outbox that is marked as one, and a new outbox restored from it.

A copy that passed for the original would upload the same events under the same outbox id, and then
assign the same seqs to other events. So a backup neither uploads nor accepts events, and an outbox
restored from one has another outbox id.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.errors import ConfigurationError, OutboxError
from tracker.outbox.files import paths
from tracker.outbox.recovery.continuation import copy
from tracker.outbox.sqlite.engine import connect
from tracker.whole_file import publish

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

_ENTRY = "backup"
"""Account entry by which a backup records when it was made, in Unix milliseconds."""


def made_at_ms(connection: Connection) -> int | None:
    """Return when the outbox was copied from another as a backup; None if it is not a backup."""
    found: int | None = connection.exec_driver_sql(
        "SELECT events FROM account WHERE entry = ?", (_ENTRY,)
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
    _copy_to(
        connection,
        path,
        like,
        [("INSERT OR REPLACE INTO account VALUES (?, ?)", (_ENTRY, time.time_ns() // 1_000_000))],
    )


def restore(connection: sqlite3.Connection, path: Path) -> None:
    """Make an outbox at `path`, with a new outbox id, from the backup that a connection reads.

    Raises:
        OutboxError: if there is a file at `path` already, or it cannot be made.
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
        with contextlib.closing(connect(draft.absolute(), "mode=rw")) as made:
            for statement, values in changes:
                made.execute(statement, values)
            made.commit()
            made.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        publish(draft, path)
    except FileExistsError:
        raise OutboxError(f"{path} exists; give another name, or move it away") from None
    except (sqlite3.Error, OSError) as error:
        raise OutboxError(f"{path} cannot be made: {error}") from error
    finally:
        for companion in ("", paths.JOURNAL, *paths.COMPANIONS):
            paths.beside(draft, companion).unlink(missing_ok=True)
