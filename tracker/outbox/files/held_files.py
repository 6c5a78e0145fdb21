"""`HeldFiles`: an outbox's file, log and index as this process has them open through SQLite.

SQLite tells other programs by POSIX record locks that a process has a database open. POSIX drops
all of them as soon as the process closes any descriptor of the file, as it does after a copy or a
hash of it. Another program that then closes the outbox takes itself for the last user and deletes
the log that this process goes on writing to; one that opens it cuts off the index under this
process's mapping.

So the same bytes are locked once more by open file description, where the system can: such a lock
ends with its own descriptor and conflicts with POSIX locks, this process's included. Before the
last connection closes it is released, so that SQLite can tidy up, but only if all three files are
still at their paths. Otherwise it is kept, and SQLite must not write an old log into a file that
has gone on without it.
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
"""First byte and number of the bytes of the file by which connections say that they have it open
(`SHARED_FIRST`, `SHARED_SIZE` in SQLite's os.h)."""
_INDEX_USERS = (128, 1)
"""The byte of the index by which processes say that they have it mapped (`UNIX_SHM_DMS`)."""
_BY_DESCRIPTION: int | None = (
    getattr(fcntl, "F_OFD_SETLK", None) if sys.platform.startswith("linux") else None
)
LOCKS_GO = _BY_DESCRIPTION is None
"""Whether this process may lose its locks by closing another descriptor of the file."""
_DESCRIPTORS = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)  # noqa: PTH112 - once

_LOG_HEADER_BYTES = 32
"""The header of a write-ahead log (sqlite.org/fileformat2.html, section 4.1)."""

Mark: TypeAlias = tuple[int, int, int]
"""Inode, device and number of names: which file it is."""

_held: dict[tuple[int, int], HeldFiles] = {}
"""By inode and device. No lock guards it: a signal handler that logs in a call that held one could
wait for a thread that waits for the lock. Each step is one of the interpreter's, and who takes
something away looks again whether somebody has come meanwhile."""
_never_closed: list[object] = []


class HeldFiles:
    """The three files of an outbox, which the connections of one process share.

    Owns a descriptor of each. They are opened after SQLite's and closed after them.

    Args:
        path: The outbox, which SQLite has open already, with its log.

    Attributes:
        names: Paths of file, log and index.
        marks: Inode, device and number of names of each.
        key: Inode and device of the file.
        shares: The connections that use them.
        users: Those, and the ones that are being closed; while there are any, they stay open.
        lost: Whether this process has lost descriptors of them to somebody else's `close`.
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
        """Say that this process has the outbox open; again before each write, if need be."""
        if _BY_DESCRIPTION is None:
            fcntl.lockf(self.descriptors[0], fcntl.LOCK_SH | fcntl.LOCK_NB, *reversed(_USERS))
        else:
            self._lock(fcntl.F_RDLCK)

    def unlock(self) -> None:
        """Let SQLite, and other programs, believe that nobody uses the outbox any more."""
        self._lock(fcntl.F_UNLCK)

    def _lock(self, kind: int) -> None:
        if _BY_DESCRIPTION is None:
            return
        ranges = ((self.descriptors[0], *_USERS), (self.descriptors[2], *_INDEX_USERS))
        for descriptor, start, length in ranges:
            wanted = struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(descriptor, _BY_DESCRIPTION, wanted)

    def are_at_path(self, first: int = 3) -> bool:
        """Return True if all three are at their paths still, and have no other name.

        Args:
            first: How many to look at: only the file, file and log, or all.
        """
        try:
            for name, mark in zip(self.names[:first], self.marks, strict=False):
                if mark_of(os.stat(name)) != mark:  # noqa: PTH116 - half the time of Path.stat
                    return False
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def are_surely_at_path(self) -> bool:
        """Return True if `are_at_path`, False also where that cannot be seen."""
        try:
            return self.are_at_path()
        except OSError:
            return False

    def are_lost(self) -> bool:
        """Return True if another part of this process has closed descriptors that hold locks."""
        if not self.lost:
            self.lost = not (
                is_open(self.descriptors[0], self.marks[0])
                and is_open(self.descriptors[2], self.marks[2])
            )
        return self.lost

    def find(self) -> tuple[list[int], list[int], list[int]] | None:
        """Return this process's other descriptors of the three; None where it cannot be told."""
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
            # While they are being opened there are no marks, and nobody has had time to close one.
            if not self.marks or is_open(descriptor, self.marks[number]):
                os.close(descriptor)


class Hold:
    """One connection's share of `HeldFiles`, and the descriptors that it goes through.

    Args:
        files: What it shares.
    """

    def __init__(self, files: HeldFiles) -> None:
        self.files = files
        self._candidates: list[tuple[list[int], tuple[int, ...]]] = []
        self._logs: list[int] = []
        self._log_header: bytes | None = None
        self._log_path: str | None = None
        self._log_in_place = False

    def look_at(self, found: Sequence[list[int]] | None) -> None:
        """Look whether the connection's descriptors stay open, which are among `found`."""
        self._candidates = [
            (candidates, mark[:2])
            for candidates, mark in zip(found or (), self.files.marks, strict=False)
        ]
        if self._candidates:
            self._logs = self._candidates[1][0]
            self._log_path = os.path.realpath(self.files.names[1])  # as the kernel says it

    def is_open(self) -> bool:
        """Return True if every descriptor is still one of these files.

        A host that closes descriptors by number, as daemons do when they start, may close SQLite's.
        The number is soon another file's, and SQLite would write there.
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
        """Return True if SQLite's log is surely open, and at its path; False if that is not known.

        By the name that Linux has for what a descriptor is open on, which ends in " (deleted)" or
        is another one if the log is not at its path any more. Whoever asks for a file's times
        instead, as `stat` does, has the next write give it new ones on Linux from 6.13 on, and a
        durable commit then took 45 µs more.
        """
        self._log_in_place = False
        try:
            name = os.readlink(f"/proc/self/fd/{self._logs[0]}")  # noqa: PTH115 - half the time
        except (OSError, IndexError):
            return False
        self._log_in_place = name == self._log_path
        return self._log_in_place

    def are_at_path(self) -> bool:
        """Return True if log and index are at their paths, after a look whether they are open.

        The file itself is looked at elsewhere.

        Raises:
            OSError: if that cannot be seen.
        """
        files = self.files
        if not self._log_in_place:
            return files.are_at_path()
        try:
            return mark_of(os.stat(files.names[2])) == files.marks[2]  # noqa: PTH116 - half the time
        except (FileNotFoundError, NotADirectoryError):
            return False

    def seems_open(self) -> bool:
        """Return, in 1 µs, True if the log is open, which every commit is written to.

        By its header, which has random salts and stays until the log is begun again.
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
        """Close a connection by `close`; never, if that would do harm."""
        files = self.files
        if not self.is_open():
            keep_for_ever(connection)  # it would close, or write to, a file of somebody else's
            return
        files.shares.discard(self)
        if not files.shares:
            if files.are_surely_at_path():
                files.unlock()
                if files.shares:  # somebody came meanwhile
                    files.lock()
            elif _BY_DESCRIPTION is None:
                keep_for_ever(connection)  # it would write its old log into the file
                return
        close()
        self.leave()

    def join(self) -> bool:
        """Take part in the files; return False if they were given up meanwhile."""
        files = self.files
        files.users.add(self)
        if _held.get(files.key) is not files:
            files.users.discard(self)
            return False
        files.shares.add(self)
        files.lock()
        return True

    def leave(self) -> None:
        """Take part no longer. The last one gives the files up."""
        files = self.files
        files.shares.discard(self)
        files.users.discard(self)
        if not files.users:
            _let_go(files)


def hold(path: Path, *, find: bool) -> Hold:
    """Hold the files of an outbox to which this process has just made a connection.

    Args:
        path: The outbox. The connection has read it, so that SQLite has its log open.
        find: Whether to find out the connection's descriptors, if it is to stay.

    Raises:
        LostFilesError: if what SQLite has open is not what is at the paths.
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
        share.look_at(found)
    return share


def _find_or_open(path: Path) -> HeldFiles:
    files = _held.get(_key(path))
    # It may have been kept, see `_let_go`.
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
    """See that this process may open a connection to `path`.

    SQLite shares descriptors between a process's connections to a file: lost once, all are.

    Raises:
        LostFilesError: if descriptors of that file were lost.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        files = _held.get(_key(path))
        if files is not None and files.lost:
            raise LostFilesError(
                f"descriptors of the outbox {path} were closed by another part of this process"
            )


def of(file: tuple[int, int] | None) -> HeldFiles | None:
    """Return what is held of the outbox of this device and inode."""
    return None if file is None else _held.get((file[1], file[0]))


def _key(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_dev


def mark_of(status: os.stat_result) -> Mark:
    """Return which file it is."""
    return status[1:4]


def is_open(descriptor: int, mark: tuple[int, ...]) -> bool:
    """Return True if the descriptor is open on the file of that inode and device."""
    try:
        return mark_of(os.fstat(descriptor))[:2] == mark[:2]
    except OSError:
        return False


def keep_for_ever(connection: object) -> None:
    """Keep a connection from being closed, also by the interpreter's end.

    SQLite's memory of it goes with the process. A reference that nobody gives back is the only
    thing that the end of the interpreter respects.
    """
    import ctypes  # only where a host has closed descriptors

    _never_closed.append(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _let_go(files: HeldFiles) -> None:
    """Close the descriptors, unless somebody else in this process uses the file.

    That would drop the locks of that one, a second copy of this package for example.
    """
    found = files.find()
    if found is None or not found[0]:
        _give_up(files)


def _give_up(files: HeldFiles) -> None:
    """Close the descriptors, unless somebody has come to use them or gives them up as well."""
    if _held.get(files.key) is not files or _held.pop(files.key, None) is not files:
        return
    if files.users:
        _held.setdefault(files.key, files)
    else:
        files.close()


def _forget_after_fork() -> None:
    """Close the parent's descriptors in a child, which does not release the parent's locks."""
    for files in _held.values():
        if not files.lost:
            files.close()
        files.lost = (
            True  # a connection that the parent could not close is not the child's to close
        )
    _held.clear()


forks.in_child(forks.Stage.HELD_FILES, _forget_after_fork)
