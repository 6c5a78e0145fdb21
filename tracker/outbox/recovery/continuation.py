"""A copy of the outbox that replaces it when its own files cannot be used any more.

Perhaps its log or index was deleted or replaced under the connections that write to it: then what
these connections see is the outbox, and they must not write another byte of it into the file, which
others may have continued with. Or this process lost SQLite's descriptors: then the files are the
outbox, and this process must not open them again, because SQLite would use the lost descriptors.

Everything here happens under the outbox's write lock. `files.swap` describes how the copy is put in
place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
from typing import TYPE_CHECKING

from tracker.clock import sleep
from tracker.outbox.files import paths, swap
from tracker.outbox.sqlite.engine import connect, make_engine
from tracker.outbox.store import chain_tail
from tracker.outbox.store.transaction import driver_of
from tracker.outbox.store.write_connection import SURE_SECONDS
from tracker.whole_file import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.files.held_files import HeldFiles
    from tracker.outbox.sqlite.engine import OutboxConnection

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_never_closed: list[int] = []
"""Keeps the inodes of files that SQLite believes to be open from being reused."""


def copy(connection: sqlite3.Connection, path: Path) -> None:
    """Copy everything that a connection sees to a new file, synced to disk.

    Raises:
        sqlite3.Error, OSError: if it cannot be copied, or the copy is not sound.
    """
    with contextlib.closing(connect(path.absolute(), "mode=rw")) as target:
        connection.backup(target)
    with contextlib.closing(connect(path.absolute(), "mode=rw")) as target:
        target.execute("PRAGMA journal_mode=WAL").close()
        found = target.execute("PRAGMA integrity_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")
    for companion in paths.COMPANIONS:
        paths.beside(path, companion).unlink(missing_ok=True)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def from_connection(path: Path, connection: OutboxConnection) -> None:
    """Make the copy, ready to be put in place, from what a connection to `path` sees.

    Raises:
        sqlite3.Error, OSError: if that fails.
    """
    draft = _new_draft(path)
    copy(connection, draft)
    _make_ready(path, draft)


def from_files(path: Path) -> None:
    """Make the copy, ready to be put in place, by reading the files at `path`.

    Raises:
        sqlite3.Error, OSError: if that fails.
    """
    _never_closed.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    draft = _new_draft(path)
    shutil.copyfile(path, draft)
    log = paths.log(path)
    if log.exists():
        shutil.copyfile(log, paths.log(draft))
    with make_engine(draft, "full", writer=True).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        found = driver_of(connection).execute("PRAGMA integrity_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    _make_ready(path, draft)


def put_in_place(path: Path) -> None:
    """Replace the outbox by the copy that is ready.

    Raises:
        OSError: if that fails.
    """
    path.unlink()
    swap.put_copy_in_place(path)
    sleep(2 * SURE_SECONDS)


def goes_on_from(path: Path, outbox_id: str, old: Connection | None) -> bool:
    """Return True if `path` is the outbox with that id and has everything that `old` sees.

    Without a connection to the old file the id decides, as nothing could be rescued anyway.
    """
    with make_engine(path, "full", writer=False).connect() as connection:
        new = driver_of(connection)
        if new.execute("SELECT outbox_id FROM identity").fetchone() != (outbox_id,):
            return False
        if old is None:
            return True
        seq, chain = chain_tail.read(driver_of(old))
        found = new.execute("SELECT chain FROM events WHERE seq = ?", (seq,)).fetchone()
        if found is not None:
            return bool(found == (chain,))
        removed = "SELECT 1 FROM gaps WHERE ? BETWEEN first_seq AND last_seq"
        return chain_tail.read(new) == (seq, chain) or bool(new.execute(removed, (seq,)).fetchone())


def remove_drafts(path: Path) -> None:
    """Remove copies that a process left unfinished when it died.

    The caller holds the write lock, and the outbox is at its path.

    Raises:
        OSError: if that fails.
    """
    for left in (_draft(path), swap.copied(path)):
        for companion in (paths.JOURNAL, *paths.COMPANIONS, ""):
            paths.beside(left, companion).unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    return paths.beside(path, ".continued")


def _new_draft(path: Path) -> Path:
    """Return an empty file for the copy, with the outbox's owner and mode."""
    draft = _draft(path)
    for companion in ("", paths.JOURNAL, *paths.COMPANIONS):
        paths.beside(draft, companion).unlink(missing_ok=True)
    status = path.stat()
    descriptor = os.open(draft, _NEW_FILE, 0o600)
    try:
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o777)
    finally:
        os.close(descriptor)
    return draft


def _make_ready(path: Path, draft: Path) -> None:
    draft.replace(swap.copied(path))
    sync_folder(path.parent)


def belongs(files: HeldFiles) -> bool:
    """Return True if the index that is open here describes the log that is open here.

    If another process has started its own log meanwhile, and shares the index, the index describes
    that one: then everything in the old log is in the file already.
    """
    _, log, index = files.descriptors
    header = os.pread(index, 48, 0)
    if len(header) < 48:
        return False
    # The index has the machine's byte order, the log is big-endian.
    page, frames, *sums = struct.unpack("=14xHI4xII", header[:32])
    if not frames or os.pread(log, 8, 16) != header[32:40]:
        return False
    page = 65536 if page == 1 else page
    place = 32 + (frames - 1) * (24 + page) + 16
    return os.pread(log, 8, place) == struct.pack(">II", *sums)
