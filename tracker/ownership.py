"""Creating files and folders so that whoever owns what lies beside them can use them.

Root, or another user of the group, runs a command on a user's outbox: a lock file that became
root's alone would lock the user's application out. So every file and folder of this package is
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
    """Whose a new file is to be, and who may use it. An id of -1 stays what the system chose."""

    uid: int = -1
    gid: int = -1
    mode: int = 0o600


def _of(path: Path) -> _Ownership:
    """Return the ownership of the file at `path`; where there is none, what its folder says."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return _Ownership(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) & 0o666)
    return _in_folder(path.parent)


def _in_folder(folder: Path) -> _Ownership:
    """Return whose a file is to be that follows no other: of root's, the folder's owner's."""
    found = folder.stat()
    if os.geteuid() != 0 or found.st_mode & stat.S_ISVTX:  # as /tmp, which is everybody's
        return _Ownership()
    return _Ownership(found.st_uid, found.st_gid)


def create(path: Path, like: Path | None = None) -> int:
    """Create a file and return its open descriptor.

    Args:
        path: Where.
        like: The file whose owner and mode it gets. If that is not there, root gives it to the
            folder's owner. By default it is this user's alone.

    Raises:
        FileExistsError: if there is one already.
        OSError: if it cannot be created.
    """
    wanted = _Ownership() if like is None else _of(like)
    descriptor = os.open(path, _NEW, 0o600)
    _give(descriptor, wanted)
    return descriptor


def open_or_create(path: Path, like: Path) -> int:
    """Return an open descriptor of the file at `path`, created like the one at `like` if need be.

    Raises:
        OSError: if it can be neither opened nor created.
    """
    while True:
        try:
            return os.open(path, _EXISTING)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another process was first
                return create(path, like)


def create_folder(folder: Path) -> None:
    """Create a folder, and those above it, for its user alone (0700), where there is none.

    What root creates belongs to the owner of the folder that was there before.

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
    """Give an open file its ownership, as far as this user can.

    Only root gives a file to another user; a member of the group can still share it with that.
    Some file systems, as FAT, know of neither: what is there belongs to whoever mounted it.
    """
    found = os.fstat(descriptor)
    uid = wanted.uid if os.geteuid() == 0 else -1
    if (uid, wanted.gid) not in ((-1, -1), (-1, found.st_gid), (found.st_uid, found.st_gid)):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, uid, wanted.gid)
    if stat.S_IMODE(found.st_mode) != wanted.mode:  # also whatever the umask is
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, wanted.mode)
