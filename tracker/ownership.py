"""Creation of files and folders that the owner of the files beside them can use.

When root or another user of the group runs a command on a user's outbox, a lock file that only
root can open would lock out the user's application. So all files and folders of this package are
created here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_EXISTING = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class _Ownership(NamedTuple):
    """Owner, group and mode of a new file. An id of -1 is not changed."""

    uid: int = -1
    gid: int = -1
    mode: int = 0o600


def _of(path: Path) -> _Ownership:
    """Return the ownership of the file at `path`, or if there is none, the one for its folder."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return _Ownership(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) & 0o666)
    return _in_folder(path.parent)


def _in_folder(folder: Path) -> _Ownership:
    """Return the ownership of a new file in a folder: if root creates it, the folder's owner."""
    found = folder.stat()
    if os.geteuid() != 0 or found.st_mode & stat.S_ISVTX:  # such as /tmp, shared by all
        return _Ownership()
    return _Ownership(found.st_uid, found.st_gid)


def create(path: Path, like: Path | None = None) -> int:
    """Create a file and return its open descriptor.

    Args:
        path: Path of the new file.
        like: The file whose owner and mode the new one gets. If it does not exist and root creates
            the new file, its owner is the folder's owner. By default only this user can use it.

    Raises:
        FileExistsError: if the file exists.
        OSError: if it cannot be created.
    """
    wanted = _Ownership() if like is None else _of(like)
    descriptor = os.open(path, _NEW, 0o600)
    _give(descriptor, wanted)
    return descriptor


def open_or_create(path: Path, like: Path) -> int:
    """Return an open descriptor of the file at `path`; create it like `like` if it is missing.

    Raises:
        OSError: if it can be neither opened nor created.
    """
    while True:
        try:
            return os.open(path, _EXISTING)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another process was first
                return create(path, like)


def open_or_create_pipe(path: Path, like: Path) -> int:
    """Return an open descriptor, which never blocks, of the named pipe at `path`.

    It is created like `like` if nothing is there. What is there may be no pipe.

    Raises:
        OSError: if it can be neither opened nor created.
    """
    how = _EXISTING | os.O_NONBLOCK
    try:
        return os.open(path, how)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was first
            os.mkfifo(path, 0o600)
    descriptor = os.open(path, how)
    _give(descriptor, _of(like))
    return descriptor


def create_folder(folder: Path) -> None:
    """Create a folder and missing parents, accessible to their user only (0700).

    A folder created by root belongs to the owner of its parent.

    Raises:
        OSError: if it cannot be created.
    """
    if folder.is_dir():
        return
    create_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    owner = _in_folder(folder.parent)._replace(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(descriptor, owner)
    finally:
        os.close(descriptor)


def _give(descriptor: int, wanted: _Ownership) -> None:
    """Set the ownership of an open file, as far as this user is allowed to.

    Only root can change the owner; a member of the group can set the group. Some file systems,
    such as FAT, have neither: all files belong to the user who mounted it.
    """
    found = os.fstat(descriptor)
    uid = wanted.uid if os.geteuid() == 0 else -1
    if (uid, wanted.gid) not in ((-1, -1), (-1, found.st_gid), (found.st_uid, found.st_gid)):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, uid, wanted.gid)
    if stat.S_IMODE(found.st_mode) != wanted.mode:  # regardless of the umask
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, wanted.mode)
