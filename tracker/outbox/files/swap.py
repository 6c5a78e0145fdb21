"""Replacing the file of an outbox: the names of the files involved, and how they are moved.

Everything here happens under the outbox's write lock, in one process at a time; the others find
another file at the path when they acquire the lock, and open that one.

The file that replaces the outbox, a new one (see `rebuild`) or a copy (see `continuation`), is
first completed under another name. Only then is the old file moved away, which shows every writer
that its file is no longer the current one; then its log and index are moved, and then the new file
is put in place. A crash in between leaves the path empty and the new file ready: the next process
finishes the replacement. SQLite can cope with that: a connection that closes leaves log and index
alone if its file is no longer at the path (``databaseIsUnmoved`` in its pager).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tracker.outbox.files import paths
from tracker.whole_file import sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SET = ".damaged-"


def damaged_sets(path: Path) -> list[Path]:
    """Return the damaged outbox files that were moved aside from `path`, oldest first."""
    return beside(path, f"{_SET}*")


def beside(path: Path, pattern: str) -> list[Path]:
    """Return the files named like the outbox with `pattern` added, except logs and indexes."""
    found = path.parent.glob(f"{_escaped(path.name)}{pattern}")
    return sorted(file for file in found if not file.name.endswith(paths.COMPANIONS))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at `path`, or None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def was_salvaged(path: Path, file: tuple[int, int] | None) -> bool:
    """Return True if `file` is one of the damaged files kept: nothing needs to be rescued."""
    return file is not None and file in [file_identity(aside) for aside in damaged_sets(path)]


def finish_interrupted(path: Path) -> None:
    """Put a new outbox or copy (see `continuation`) in place that is complete but not there yet.

    If the old file is still at the path, it may have been written to since, so nothing is done: the
    next salvage makes a new file.
    """
    if not is_interrupted(path):
        return
    if copied(path).exists():
        put_copy_in_place(path)
    else:
        sets = damaged_sets(path)
        finish(path, sets[-1] if sets else free_name(path))


def is_interrupted(path: Path) -> bool:
    """Return True if a process died between moving the old file away and putting the new one there.

    Another process, about to open the outbox, may have created an empty file there.
    """
    try:
        if path.stat().st_size:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return copied(path).exists() or ready(path).exists()
    return copied(path).exists()


def put_copy_in_place(path: Path) -> None:
    """Move the copy to the outbox's path, over an empty file that a process may have created."""
    for companion in paths.COMPANIONS:
        paths.beside(path, companion).unlink(missing_ok=True)
    copied(path).rename(path)
    sync_folder(path.parent)


def leave_companions(path: Path, own: Sequence[tuple[int, int, int]]) -> None:
    """Move away log and index of a file that is gone, or SQLite would use them for the new one.

    Args:
        path: Where the file was. Another one may be there, which has its own log and index.
        own: Inode, device and number of names of log and index of the file that is gone.
    """
    aside, gone = free_name(path), file_identity(path) is None
    for companion in paths.COMPANIONS:
        left = paths.beside(path, companion)
        found = file_identity(left)
        if found is not None and (gone or (found[1], found[0]) in [mark[:2] for mark in own]):
            left.rename(paths.beside(aside, companion))


def finish(path: Path, aside: Path) -> None:
    """Move the new outbox to the path, after the old file was moved to `aside`."""
    _move_companions(path, aside)
    ready(path).rename(path)
    sync_folder(path.parent)


def _move_companions(path: Path, aside: Path) -> None:
    for companion in paths.COMPANIONS:
        left = paths.beside(path, companion)
        if left.exists():
            left.rename(paths.beside(aside, companion))


def unfinished(path: Path) -> Path:
    """Return the path of a new outbox that is not complete yet."""
    return paths.beside(path, ".salvage")


def ready(path: Path) -> Path:
    """Return the path of a new outbox that is complete."""
    return paths.beside(path, ".salvaged")


def copied(path: Path) -> Path:
    """Return the path of a copy that is complete."""
    return paths.beside(path, ".copied")


def free_name(path: Path) -> Path:
    """Return an unused name for the damaged set, with the time in UTC."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        number += 1
        name = f"{path.name}{_SET}{moment}" + (f"-{number}" if number > 1 else "")
        if not any(path.with_name(name + end).exists() for end in ("", *paths.COMPANIONS)):
            return path.with_name(name)
