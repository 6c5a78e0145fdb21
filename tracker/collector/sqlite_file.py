"""`SQLiteFile`: the collector's file, its lock, and checks that both are still in place."""

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
    """The open file is not the one at the path: its commits would be lost with the process."""


class SQLiteFile:
    """A database file and its write-ahead log, identified by device and inode.

    A file that is deleted, moved or replaced while it is open still accepts commits, which are
    lost. So every commit is followed by `check`, under the write lock, before it is confirmed.
    Owns the lock and one connection that always holds SQLite's shared lock on the file, so that no
    other program closes the last connection and deletes the log.

    Args:
        path: Path of the file; it is created with mode 0600, its folder with 0700, if missing.

    Raises:
        ConfigurationError: if the file has another name: a hard link.
        OSError: if it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        ownership.create_folder(path.parent)
        if not path.exists():
            # SQLite gives its -wal and -shm files the mode of this file. An existing file is not
            # opened: closing it again would release this process's locks on it.
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
        """Open the file and note which log belongs to it. Call this under the lock."""
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
            # SQLite would now delete, by its name, the log of the file that is at the path instead.
            # So the connection stays open until the process ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(keeper))
        else:
            keeper.close()

    def check(self) -> None:
        """Check that the open file and its log are those at the path.

        Raises:
            MisplacedFileError: if they are not.
        """
        if self._identify(self.path) != self._identity:
            raise MisplacedFileError(
                f"{self.path} was deleted, moved or replaced while it was in use: put it back, or"
                " restart the collector to use the file that is there now"
            )
        if self._log is not None and self._identity_of_log() != self._log:
            raise MisplacedFileError(
                f"{self.path}-wal, a part of the database, was deleted or replaced while it was in"
                " use"
            )

    def carry_over(self) -> bool:
        """Move the content of a deleted log to the file; return True if the log was deleted.

        Call this under the lock. All other connections have to be reopened afterwards.

        Raises:
            MisplacedFileError: if the file itself was replaced, another log is in its place, or a
                read takes too long; then retry.
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
        # RESTART: everything is in the file, the old log is no longer read, and the next commit
        # starts a new log at the path.
        busy, _, _ = self._keeper.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        if busy:
            raise MisplacedFileError("the database's log was deleted, and is still being read")
        old, self._keeper = self._keeper, None
        self.hold()
        old.close()
        logger.error(
            "%s-wal was deleted or moved while it was in use; its content was moved to the"
            " database, and nothing is lost",
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

    Owns the thread lock and, while held, the descriptor of the lock file. All writes and all
    checkpoints (within the commit of a write) happen under it, so that the race described on
    sqlite.org/wal.html as "walresetbug" cannot happen, not even between ``serve`` and
    ``keys create``. The lock file is never deleted: that would split the lock in two.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._thread_lock = threading.Lock()
        self._descriptor = -1

    def __enter__(self) -> None:
        if not self._thread_lock.acquire(timeout=BUSY_SECONDS):
            raise TimeoutError(f"the write lock was not free for {BUSY_SECONDS} s")
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
                # Another process, which is rare: a stopped one must not block this one forever.
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
