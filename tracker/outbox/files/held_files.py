"""`HeldFiles`: an outbox's file, log and index as this process has them open through SQLite.

SQLite shows other programs that a process has a database open by holding POSIX record locks. POSIX
drops all of them as soon as the process closes any descriptor of the file, for example after
copying or hashing it. If another program then closes the outbox, it takes itself for the last user
and deletes the log that this process is still writing to; if one opens the outbox, it truncates the
index under this process's mapping.

So the same bytes are locked a second time by open file description, where the system supports it:
such a lock ends with its own descriptor and conflicts with POSIX locks, including those of this
process. It is released before the last connection closes, so that SQLite can clean up, but only if
all three files are still at their paths. Otherwise it is kept, and SQLite must not write an old log
into a file that has moved on without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from os import pread
from typing import TYPE_CHECKING, TypeAlias

from tracker import forks
from tracker.outbox.files import paths
from tracker.outbox.files.open_files import LostFilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_USERS = (0x40000002, 510)
"""First byte and number of the bytes of the file that a connection locks to show that it has it
open (`SHARED_FIRST`, `SHARED_SIZE` in SQLite's os.h)."""
_INDEX_USERS = (128, 1)
"""The byte of the index that a process locks to show that it has it mapped (`UNIX_SHM_DMS`)."""
_BY_DESCRIPTION: int | None = (
    getattr(fcntl, "F_OFD_SETLK", None) if sys.platform.startswith("linux") else None
)
LOCKS_GO = _BY_DESCRIPTION is None
"""Whether this process may lose its locks by closing another descriptor of the file."""
_DESCRIPTORS = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)  # noqa: PTH112 - once

_LOG_HEADER_BYTES = 32
"""The header of a write-ahead log (sqlite.org/fileformat2.html, section 4.1)."""

Mark: TypeAlias = tuple[int, int, int]
"""Inode, device and number of names of a file: its identity."""

_held: dict[tuple[int, int], HeldFiles] = {}
"""By inode and device. No lock guards it: a signal handler that logs inside a call that holds the
lock could wait for a thread that waits for the lock. Each step is atomic in the interpreter, and
code that removes an entry checks again whether a user was added meanwhile."""
_never_closed: list[object] = []


class HeldFiles:
    """The three files of an outbox, shared by the connections of one process.

    Owns a descriptor of each. They are opened after SQLite's and closed after them.

    Args:
        path: The outbox, which SQLite has open already, with its log.

    Attributes:
        names: Paths of file, log and index.
        marks: Inode, device and number of names of each.
        key: Inode and device of the file.
        shares: The connections that use them.
        users: Those, and the ones that are being closed; the files stay open while there are any.
        lost: Whether other code in this process has closed descriptors of them.
    """

    def __init__(self, path: Path) -> None:
        self.names = tuple(f"{path}{companion}" for companion in ("", *paths.COMPANIONS))
        self.shares: set[Hold] = set()
        self.users: set[Hold] = set()
        self.lost = False
        self.descriptors: list[int] = []
        self.marks: Sequence[Mark] = ()
        try:
            for name in self.names:
                self.descriptors.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            self.marks = [mark_of(os.fstat(each)) for each in self.descriptors]
            self.key = self.marks[0][:2]
            self.lock()
        except BaseException as error:
            self.close()
            if isinstance(error, FileNotFoundError):
                raise LostFilesError(f"the log of the outbox {path} was deleted") from error
            raise

    def lock(self) -> None:
        """Show that this process has the outbox open; repeated before each write if necessary."""
        if _BY_DESCRIPTION is None:
            fcntl.lockf(self.descriptors[0], fcntl.LOCK_SH | fcntl.LOCK_NB, *reversed(_USERS))
        else:
            self._lock(fcntl.F_RDLCK)

    def unlock(self) -> None:
        """Stop showing SQLite and other programs that this process has the outbox open."""
        self._lock(fcntl.F_UNLCK)

    def flush_log(self) -> None:
        """Flush the log to the disk, whichever process wrote to it.

        Raises:
            OSError: if that fails.
        """
        os.fsync(self.descriptors[1])

    def _lock(self, kind: int) -> None:
        if _BY_DESCRIPTION is None:
            return
        ranges = ((self.descriptors[0], *_USERS), (self.descriptors[2], *_INDEX_USERS))
        for descriptor, start, length in ranges:
            wanted = struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(descriptor, _BY_DESCRIPTION, wanted)

    def are_at_path(self, first: int = 3) -> bool:
        """Return True if all three are still at their paths and have no other name.

        Args:
            first: How many to check: 1 the file only, 2 file and log, 3 all.
        """
        try:
            for name, mark in zip(self.names[:first], self.marks, strict=False):
                if mark_of(os.stat(name)) != mark:  # noqa: PTH116 - half the time of Path.stat
                    return False
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def are_surely_at_path(self) -> bool:
        """Return the result of `are_at_path`, or False if that cannot be found out."""
        try:
            return self.are_at_path()
        except OSError:
            return False

    def are_lost(self) -> bool:
        """Return True if other code in this process has closed descriptors that hold locks."""
        if not self.lost:
            self.lost = not (
                is_open(self.descriptors[0], self.marks[0])
                and is_open(self.descriptors[2], self.marks[2])
            )
        return self.lost

    def find(self) -> tuple[list[int], list[int], list[int]] | None:
        """Return this process's other descriptors of the three; None if they cannot be listed."""
        if _DESCRIPTORS is None:
            return None
        found: tuple[list[int], list[int], list[int]] = ([], [], [])
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - names are all that is needed
            descriptor = int(name)
            for number, mark in enumerate(self.marks):
                if descriptor not in self.descriptors and is_open(descriptor, mark):
                    found[number].append(descriptor)
        return found

    def close(self) -> None:
        """Close the descriptors, which releases the locks."""
        descriptors, self.descriptors = self.descriptors, []
        for number, descriptor in enumerate(descriptors):
            # While they are being opened there are no marks yet, and nobody can have closed one.
            if not self.marks or is_open(descriptor, self.marks[number]):
                os.close(descriptor)


class Hold:
    """One connection's share of `HeldFiles`, and the descriptors that the connection uses.

    Args:
        files: The files that it shares.
    """

    def __init__(self, files: HeldFiles) -> None:
        self.files = files
        self._candidates: list[tuple[list[int], tuple[int, ...]]] = []
        self._logs: list[int] = []
        self._log_header: bytes | None = None
        self._log_path: str | None = None
        self._log_in_place = False

    def watch_descriptors(self, found: Sequence[list[int]] | None) -> None:
        """Watch whether the connection's descriptors, which are among `found`, stay open."""
        self._candidates = [
            (candidates, mark[:2])
            for candidates, mark in zip(found or (), self.files.marks, strict=False)
        ]
        if self._candidates:
            self._logs = self._candidates[1][0]
            self._log_path = os.path.realpath(self.files.names[1])  # as the kernel reports it

    def is_open(self) -> bool:
        """Return True if every descriptor still refers to one of these files.

        A host that closes descriptors by number, as daemons do when they start, may close SQLite's.
        The number soon belongs to another file, and SQLite would write there.
        """
        if not self.files.are_lost():
            for candidates, mark in self._candidates:
                if candidates is self._logs and self._see_log_in_place():
                    continue
                while candidates and not is_open(candidates[0], mark):
                    candidates.pop(0)
            if all(candidates for candidates, _ in self._candidates):
                return True
        self.files.lost = True
        return False

    def _see_log_in_place(self) -> bool:
        """Return True if SQLite's log is surely open and at its path; False if that is not known.

        Linux shows the name of the file that a descriptor is open on. If the log is no longer at
        its path, that name ends in " (deleted)" or is another one. `stat` would do too, but from
        Linux 6.13 on, a write after a query of a file's times has to set new ones, and a durable
        commit took 45 µs longer.
        """
        self._log_in_place = False
        try:
            name = os.readlink(f"/proc/self/fd/{self._logs[0]}")  # noqa: PTH115 - half the time
        except (OSError, IndexError):
            return False
        self._log_in_place = name == self._log_path
        return self._log_in_place

    def are_at_path(self) -> bool:
        """Return True if log and index are at their paths; call it after checking they are open.

        The file itself is checked elsewhere.

        Raises:
            OSError: if that cannot be found out.
        """
        files = self.files
        if not self._log_in_place:
            return files.are_at_path()
        try:
            return mark_of(os.stat(files.names[2])) == files.marks[2]  # noqa: PTH116 - half the time
        except (FileNotFoundError, NotADirectoryError):
            return False

    def seems_open(self) -> bool:
        """Return True, within 1 µs, if the log, to which every commit is written, is open.

        It is recognised by its header, which has random salts and stays the same until SQLite
        starts the log over.
        """
        if not self._logs:
            return self.is_open()
        try:
            header = pread(self._logs[0], _LOG_HEADER_BYTES, 0)
        except OSError:
            return self.is_open()
        if header == self._log_header:
            return True
        if not self.is_open():
            return False
        if len(header) == _LOG_HEADER_BYTES:
            self._log_header = header
        return True

    def close(self, connection: object, close: Callable[[], None]) -> None:
        """Close a connection by `close`; never close it if that would do damage."""
        files = self.files
        if not self.is_open():
            keep_forever(connection)  # closing would close, or write to, somebody else's file
            return
        files.shares.discard(self)
        if not files.shares:
            if files.are_surely_at_path():
                files.unlock()
                if files.shares:  # another connection was opened meanwhile
                    files.lock()
            elif _BY_DESCRIPTION is None:
                keep_forever(connection)  # closing would write its old log into the file
                return
        close()
        self.leave()

    def join(self) -> bool:
        """Start sharing the files; return False if they were given up meanwhile."""
        files = self.files
        files.users.add(self)
        if _held.get(files.key) is not files:
            files.users.discard(self)
            return False
        files.shares.add(self)
        files.lock()
        return True

    def leave(self) -> None:
        """Stop sharing the files. The last share gives them up."""
        files = self.files
        files.shares.discard(self)
        files.users.discard(self)
        if not files.users:
            _let_go(files)


def hold(path: Path, *, find: bool) -> Hold:
    """Hold the files of an outbox to which this process has just made a connection.

    Args:
        path: The outbox. The connection has read from it, so that SQLite has its log open.
        find: Whether to find out the connection's descriptors, because it is kept open.

    Raises:
        LostFilesError: if SQLite has other files open than those at the paths.
    """
    share = Hold(_find_or_open(path))
    while not share.join():
        share = Hold(_find_or_open(path))
    files = share.files
    found = files.find() if find or len(files.users) == 1 else None
    if files.lost or not files.are_at_path() or (found is not None and not all(found)):
        share.leave()
        raise LostFilesError(f"the log of the outbox {path} was deleted or replaced")
    if find:
        share.watch_descriptors(found)
    return share


def _find_or_open(path: Path) -> HeldFiles:
    files = _held.get(_key(path))
    # It may have been kept open, see `_let_go`.
    if files is not None and not files.users and not files.lost and not files.are_at_path():
        _give_up(files)
        files = None
    if files is None:
        made = HeldFiles(path)
        files = _held.setdefault(made.key, made)
        if files is not made:
            made.close()
    return files


def check(path: Path) -> None:
    """Check that this process may open a connection to `path`.

    SQLite shares descriptors between a process's connections to a file: if one is lost, all are.

    Raises:
        LostFilesError: if descriptors of that file were lost.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        files = _held.get(_key(path))
        if files is not None and files.lost:
            raise LostFilesError(
                f"other code in this process closed descriptors of the outbox {path}"
            )


def of(file: tuple[int, int] | None) -> HeldFiles | None:
    """Return the held files of the outbox with this device and inode."""
    return None if file is None else _held.get((file[1], file[0]))


def _key(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_dev


def mark_of(status: os.stat_result) -> Mark:
    """Return the identity of a file."""
    return status[1:4]


def is_open(descriptor: int, mark: tuple[int, ...]) -> bool:
    """Return True if the descriptor is open on the file with that inode and device."""
    try:
        return mark_of(os.fstat(descriptor))[:2] == mark[:2]
    except OSError:
        return False


def keep_forever(connection: object) -> None:
    """Keep a connection from ever being closed, even at interpreter exit.

    The memory that SQLite uses for it is freed with the process. Only a reference that is never
    given back survives interpreter exit.
    """
    import ctypes  # only where a host has closed descriptors

    _never_closed.append(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _let_go(files: HeldFiles) -> None:
    """Close the descriptors, unless other code in this process uses the file.

    Closing them would drop the locks of that code, for example a second copy of this package.
    """
    found = files.find()
    if found is None or not found[0]:
        _give_up(files)


def _give_up(files: HeldFiles) -> None:
    """Close the descriptors, unless a user was added meanwhile or another call gives them up."""
    if _held.get(files.key) is not files or _held.pop(files.key, None) is not files:
        return
    if files.users:
        _held.setdefault(files.key, files)
    else:
        files.close()


def _forget_after_fork() -> None:
    """Close the parent's descriptors in a child. This does not release the parent's locks."""
    for files in _held.values():
        if not files.lost:
            files.close()
        files.lost = (
            True  # a connection that the parent could not close is not the child's to close
        )
    _held.clear()


forks.in_child(forks.Stage.HELD_FILES, _forget_after_fork)
