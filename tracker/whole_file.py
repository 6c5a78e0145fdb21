"""Writing a file that appears complete or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from tracker import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_SQLITE = b"SQLite format 3\0"


def is_database(path: Path) -> bool:
    """Return whether a file is an SQLite database, which no output of a command is to replace.

    This process must not have it open: reading its first bytes would release SQLite's locks. A
    link counts as no database, for whatever is written under its name replaces the link alone.

    Raises:
        OSError: if the file cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


@contextmanager
def whole_file(
    path: Path, *, replace: bool = False, like: Path | None = None
) -> Iterator[IO[bytes]]:
    """Yield a file to write, which appears at `path` when the block ends without an exception.

    Until then, and if an exception escapes, what was at `path` stays as it was. The file is opened,
    flushed to the disk and closed here.

    Args:
        path: Where the file is to appear.
        replace: Whether it may replace another file.
        like: As for `ownership.create`: the file whose owner and mode it gets. By default it is
            readable and writable by this user alone.

    Raises:
        FileExistsError: if there is a file already, or one appears meanwhile, and `replace` is
            False.
        OSError: if the file cannot be written, or what it may replace is not a file.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not replace:
        _refuse_existing(path)
    elif path.exists() and not path.is_file():  # such as /dev/null, which others need
        raise OSError(errno.EINVAL, "is not a file", str(path))
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(ownership.create(draft, like), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(draft, path, replace=replace)
    finally:
        draft.unlink(missing_ok=True)


def publish(draft: Path, path: Path, *, replace: bool = False) -> None:
    """Give a finished file its name, durably. Without `replace`, the draft may stay as well.

    Raises:
        FileExistsError: if there is a file at `path` and `replace` is False.
        OSError: if the file cannot be moved.
    """
    if replace:
        draft.replace(path)
    else:
        try:
            os.link(draft, path)  # unlike a rename, this never replaces a file that has appeared
        except FileExistsError:
            raise
        except OSError:  # FAT and some network file systems have no hard links
            _refuse_existing(path)
            draft.rename(path)
    sync_folder(path.parent)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def sync_folder(folder: Path) -> None:
    """Make new names in the folder survive a power cut.

    Raises:
        OSError: if that fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
