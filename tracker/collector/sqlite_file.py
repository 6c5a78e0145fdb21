"""`SQLiteFile`: the collector's file, the lock beside it, and whether both are still in place."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

from tracker import clock, ownership
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

BUSY_SECONDS = 30
"""How long SQLite, and a writer, wait for a lock."""
_POLL_SECONDS = 0.005

_Identity = tuple[int, int]  # device and inode


class MisplacedFileError(OSError):
    """What is open is not what lies at the path: a commit there would be lost with the process."""


class SQLiteFile:
    """A database file and its write-ahead log, known by device and inode.

    A file that is deleted, moved or replaced while it is open goes on taking commits that nobody
    finds again. So every commit is followed by `check`, under the write lock, before it is
    confirmed. Owns the lock and one connection, which holds SQLite's shared lock on the file from
    beginning to end, so that no other program takes itself for the last one and deletes the log.

    Args:
        path: Where it is; it is made with mode 0600, its folder with 0700, if it is absent.

    Raises:
        ConfigurationError: the file has another name too: a hard link.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        ownership.create_folder(path.parent)
        if not path.exists():
            # SQLite gives its -wal and -shm files the mode that this file has. A file that exists
            # is not even opened: closing it again would drop this process's locks on it.
            with contextlib.suppress(FileExistsError):  # another process was first
                os.close(ownership.create(path, like=path))
        found = path.stat()
        if found.st_nlink > 1:
            raise ConfigurationError(
                f"{path} has {found.st_nlink} names (hard links), and SQLite keeps a log for each;"
                " remove all names but one"
            )
        self.lock = FileLock(path)
        self._identity: _Identity = (found.st_dev, found.st_ino)
        self._log: _Identity | None = None
        self._keeper: sqlite3.Connection | None = None

    def hold(self) -> None:
        """Open the file and remember which log belongs to it. Call it under the lock."""
        if self._keeper is not None:
            return
        keeper = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            keeper.execute("PRAGMA journal_mode=WAL")
            keeper.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except BaseException:
            keeper.close()
            raise
        self._keeper, self._log = keeper, self._identity_of_log()

    def release(self) -> None:
        """Close the file."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            self.check()
        except MisplacedFileError:
            # SQLite would now delete, by its name, the log of whatever lies at the path instead.
            # So the connection stays open until the process ends, whoever lets go of it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(keeper))
        else:
            keeper.close()

    def check(self) -> None:
        """Return if the open file and its log are those at the path.

        Raises:
            MisplacedFileError: if not.
        """
        if self._identify(self.path) != self._identity:
            raise MisplacedFileError(
                f"{self.path} was deleted, moved or replaced while it was in use: put it back, or"
                " restart the collector to begin with what is there now"
            )
        if self._log is not None and self._identity_of_log() != self._log:
            raise MisplacedFileError(
                f"{self.path}-wal, a part of the database, was deleted or replaced while it was in"
                " use"
            )

    def carry_over(self) -> bool:
        """Move what only a deleted log holds into the file; return whether it was deleted.

        Call it under the lock. Every other connection has to be opened anew afterwards.

        Raises:
            MisplacedFileError: the file itself is another, a log that is not ours is in the place,
                or somebody reads for too long: try again.
        """
        try:
            self.check()
        except MisplacedFileError:
            if self._keeper is None or self._identify(self.path) != self._identity:
                raise
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
        else:
            return False
        # RESTART: all of it is in the file, nobody reads the old log, and the next commit begins a
        # log from the start, in the file at the path.
        busy, _, _ = self._keeper.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            raise MisplacedFileError("the database's log was deleted, and a reader is still at it")
        old, self._keeper = self._keeper, None
        self.hold()
        old.close()
        logger.error(
            "%s-wal was deleted or moved while it was in use; what it held was carried over into"
            " the database, and nothing is lost",
            self.path,
        )
        return True

    def _identity_of_log(self) -> _Identity | None:
        return self._identify(self.path.with_name(self.path.name + "-wal"))

    @staticmethod
    def _identify(path: Path) -> _Identity | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)


class FileLock:
    """One writer at a time for an SQLite file: a thread lock, and a file lock for processes.

    Owns the thread lock and, while held, the descriptor of the sidecar file. Every write and
    every checkpoint (they happen within a write's commit) is done under it, so that the race
    described on sqlite.org/wal.html as "walresetbug" cannot happen, not even between ``serve``
    and ``keys create``. The sidecar file is never deleted: that would split the lock in two.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._thread_lock = threading.Lock()
        self._descriptor = -1

    def __enter__(self) -> None:
        if not self._thread_lock.acquire(timeout=BUSY_SECONDS):
            raise TimeoutError(f"no turn to write for {BUSY_SECONDS} s")
        try:
            self._descriptor = ownership.open_or_create(self._path, like=self._database)
            self._lock()
        except BaseException:
            self._release()
            raise

    def _lock(self) -> None:
        end = clock.monotonic() + BUSY_SECONDS
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Another process, which is rare: a stopped one must not stop this one for ever.
                if clock.monotonic() > end:
                    raise TimeoutError(
                        f"another process has held {self._path} locked for {BUSY_SECONDS} s"
                    ) from None
                clock.sleep(_POLL_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if descriptor >= 0:
                os.close(descriptor)  # which also unlocks
        finally:
            self._thread_lock.release()
