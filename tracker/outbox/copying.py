"""A copy of the outbox in use that takes its place, so that old readers are left behind.

SQLite cannot begin its write-ahead log anew while any program reads an old state of it, and no
other process can end that read. Measured beside such a reader, the log grows by 16 to 21 kB with
each event (four or five pages of 4 kB), by 12 kB with pages of 2 kB and by 9 kB with pages of 1 kB,
at 1.7 times the time of a call: less, and still without bound. So the reader gets the old file for
itself: a copy takes its place, with an empty log, and what the reader holds goes when it ends.

The file is copied while calls go on, and may be written to meanwhile by a checkpoint. That does no
harm, for all that checkpoints wrote since the log was begun stands in the log as well: the copy
with the log laid over it is the outbox, as it is after a crash. Only the log is copied under the
write lock. The log's salts tell whether it is still the same one; where it is not, the reader has
gone and so has the trouble.

Other processes find another file at the path at their next write, as after a salvage; since it goes
on where theirs ended, they open it and nothing is to be rescued (`goes_on_from`). A process that
dies between taking the old file away and putting the copy there leaves it ready: whoever comes next
finishes the move (`moves.finish_interrupted`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.clock import sleep
from tracker.outbox import head as heads
from tracker.outbox import moves
from tracker.outbox.engine import make_engine
from tracker.outbox.transaction import driver_of
from tracker.outbox.write_connection import SURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.head import Head

_BEING_MADE = ".copying-"
"""What follows the outbox's name in that of a copy in the making; the process's id comes behind."""
_CHUNK = 1024 * 1024
_ROOM_LEFT = 64 * 1024 * 1024
"""What must be free on the disk beside the copy."""

# Where SQLite puts its locks on a database file (`SHARED_FIRST`, `SHARED_SIZE` in its os.h): every
# connection to a file with a write-ahead log holds a shared one there as long as it is open.
_SHARED_FIRST = 0x40000002
_SHARED_SIZE = 510


class Copy:
    """A copy of an outbox in the making.

    Args:
        path: The outbox.
        descriptor: The outbox, open for reading. To be closed only when SQLite has it no longer
            open in this process: see `open_files`.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._salts = _salts(path)
        self._copy = path.with_name(f"{path.name}{_BEING_MADE}{os.getpid()}")
        self._made: tuple[int, int] | None = None
        self._target: int | None = None

    def make(self, stopped: Callable[[], bool]) -> bool:
        """Copy the file as it lies on disk; False if there is no room for it, or it was stopped.

        Raises:
            OSError: if it cannot be read or written.
        """
        status = os.fstat(self._descriptor)
        log = _log_of(self._path).stat().st_size
        free = shutil.disk_usage(self._path.parent).free
        if free < status.st_size + 2 * log + _ROOM_LEFT:
            return False
        self.remove()
        target = self._target = ownership.create(self._copy, like=self._path)
        try:
            made = os.fstat(target)
            self._made = made.st_dev, made.st_ino
            at = 0
            while piece := os.pread(self._descriptor, _CHUNK, at):
                if stopped():
                    return False
                _write(target, piece)
                at += len(piece)
                # Bit by bit, lest the syncs of calls wait for a long one. Under the lock there is
                # less left to do. And with gevent, nobody else runs unless there is a pause.
                os.fsync(target)
                sleep(0)
        finally:
            self._target = None
            os.close(target)
        return True

    def forget(self) -> None:
        """Close, in a forked child, what the parent goes on to write."""
        if self._target is not None:
            os.close(self._target)

    def put_in_place(self) -> bool:
        """Lay the log over the copy and put it at the path; False if the log was begun anew.

        The caller holds the write lock, and this process has the outbox open no more.

        Raises:
            OSError, SQLAlchemyError: if it cannot be done. The outbox is at its path then, or its
                copy is, or `moves.finish_interrupted` puts it there.
        """
        path, copied = self._path, self._copy
        with make_engine(path, "full", writer=False).connect() as connection:
            head = heads.read(driver_of(connection))
        if _salts(path) != self._salts or self._salts is None:
            return False
        if moves.identity(copied) != self._made:
            return False  # somebody took it for a leftover
        os.close(ownership.create(_log_of(copied), like=copied))
        shutil.copyfile(_log_of(path), _log_of(copied))
        if _take_in_log(copied) != head:
            return False
        with copied.open("rb") as file:
            os.fsync(file.fileno())
        copied.rename(moves.copied(path))
        moves.sync_folder(path)
        try:
            path.unlink()
        except OSError:  # as where it is a mount point
            moves.copied(path).unlink()
            raise
        moves.put_copy_in_place(path)
        sleep(2 * SURE_SECONDS)
        return True

    def remove(self) -> None:
        """Remove what was made, if it did not take the outbox's place.

        Raises:
            OSError: if that cannot be.
        """
        _remove(self._copy)


def _write(target: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(target, view) :]


def _take_in_log(copied: Path) -> Head:
    """Write a file's log into it and leave it without one; return where the outbox ends."""
    with make_engine(copied, "full", writer=True).connect() as connection:
        connection.exec_driver_sql("PRAGMA synchronous=OFF")  # it is synced as a whole, when done
        head = heads.read(driver_of(connection))
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    for companion in ("-wal", "-shm"):
        copied.with_name(copied.name + companion).unlink(missing_ok=True)
    return head


def remove_leftovers(path: Path) -> None:
    """Remove what processes have left that died while they copied.

    The caller holds the write lock, and the outbox is at its path.

    Raises:
        OSError: if that cannot be.
    """
    for left in leftovers(path):
        _remove(left)


def leftovers(path: Path) -> list[Path]:
    """Return the copies that lie about: unfinished ones, or whole but not at the path."""
    unfinished = moves.beside(path, f"{_BEING_MADE}*")
    return [left for left in (*unfinished, moves.copied(path)) if left.exists()]


def _remove(copied: Path) -> None:
    for suffix in ("-wal", "-shm", ""):  # itself last: who looks for leftovers looks for it
        copied.with_name(copied.name + suffix).unlink(missing_ok=True)


def goes_on_from(path: Path, outbox_id: str, old: Connection | None) -> bool:
    """Tell whether `path` is the outbox of that id and holds all that the one behind `old` does.

    Without a connection to the old one the id decides: nothing could be rescued anyway.
    """
    with make_engine(path, "full", writer=False).connect() as connection:
        new = driver_of(connection)
        if new.execute("SELECT outbox_id FROM identity").fetchone() != (outbox_id,):
            return False
        if old is None:
            return True
        seq, chain = heads.read(driver_of(old))
        found = new.execute("SELECT chain FROM events WHERE seq = ?", (seq,)).fetchone()
        if found is not None:
            return bool(found == (chain,))
        removed = "SELECT 1 FROM gaps WHERE ? BETWEEN first_seq AND last_seq"
        return heads.read(new) == (seq, chain) or bool(new.execute(removed, (seq,)).fetchone())


def is_read(descriptor: int) -> bool:
    """Tell whether any other process has the file open through SQLite."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
    except OSError:
        return True
    fcntl.lockf(descriptor, fcntl.LOCK_UN, _SHARED_SIZE, _SHARED_FIRST)
    return False


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _salts(path: Path) -> bytes | None:
    """Return the two numbers that tell one generation of the log from the next; None without."""
    try:
        with _log_of(path).open("rb") as file:
            return file.read(24)[16:] or None
    except FileNotFoundError:
        return None
