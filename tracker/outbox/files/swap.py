"""The files beside an outbox that take its place or gave it up: their names, and their moves.

Everything here happens under the outbox's write lock, so in one process at a time; the others find
another file at the path when the lock is theirs, and open that one.

What takes the outbox's place, a new one (see `replacement`) or a copy (see `continuation`), is made
whole under another name first. Only then the old file leaves the path, which tells every writer
that its own is no longer the one; then go its log and its index, then the new one comes. A crash in
between leaves the path empty and the new file ready: whoever comes next finishes the move. SQLite
itself is at ease with it: a connection that closes leaves log and index alone if its file is no
longer the one at the path (``databaseIsUnmoved`` in its pager).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tracker.outbox.files import paths

if TYPE_CHECKING:
    from pathlib import Path

_SET = ".damaged-"


def damaged_sets(path: Path) -> list[Path]:
    """Return the damaged outbox files that were moved aside from `path`, oldest first."""
    return beside(path, f"{_SET}*")


def beside(path: Path, pattern: str) -> list[Path]:
    """Return the files whose names go on from the outbox's as `pattern`, but for logs and such."""
    found = path.parent.glob(f"{_escaped(path.name)}{pattern}")
    return sorted(file for file in found if not file.name.endswith(paths.COMPANIONS))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return which file is at `path`, by device and inode, or None if none is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def was_salvaged(path: Path, file: tuple[int, int] | None) -> bool:
    """Tell whether `file` is one of the damaged ones aside, so that nothing need be rescued."""
    return file is not None and file in [file_identity(aside) for aside in damaged_sets(path)]


def finish_interrupted(path: Path) -> None:
    """Put a new outbox or copy (see `continuation`) in its place that is ready, but not there yet.

    Where the old one is still at the path, it may have been written since, so nothing is taken
    over: the next salvage makes another.
    """
    if not is_interrupted(path):
        return
    if copied(path).exists():
        put_copy_in_place(path)
    else:
        sets = damaged_sets(path)
        finish(path, sets[-1] if sets else free_name(path))


def is_interrupted(path: Path) -> bool:
    """Tell whether a process died between taking the old file away and putting the new one in.

    Another one may have made an empty file there, which it was about to open.
    """
    try:
        if path.stat().st_size:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return copied(path).exists() or ready(path).exists()
    return copied(path).exists()


def put_copy_in_place(path: Path) -> None:
    """Put the copy where the outbox was, over an empty file that some process may have made."""
    for companion in paths.COMPANIONS:
        paths.beside(path, companion).unlink(missing_ok=True)
    copied(path).rename(path)
    sync_folder(path)


def leave_companions(path: Path) -> None:
    """Move log and index of a file that is gone aside, lest SQLite take them for the new one's."""
    if file_identity(path) is None:
        _move_companions(path, free_name(path))


def finish(path: Path, aside: Path) -> None:
    """Put the new outbox that is ready at the path, which the old file has left for `aside`."""
    _move_companions(path, aside)
    ready(path).rename(path)
    sync_folder(path)


def _move_companions(path: Path, aside: Path) -> None:
    for companion in paths.COMPANIONS:
        left = paths.beside(path, companion)
        if left.exists():
            left.rename(paths.beside(aside, companion))


def being_made(path: Path) -> Path:
    """Return where a new outbox is made."""
    return paths.beside(path, ".salvage")


def ready(path: Path) -> Path:
    """Return where a new outbox is when it is whole."""
    return paths.beside(path, ".salvaged")


def copied(path: Path) -> Path:
    """Return where a copy is when it is whole."""
    return paths.beside(path, ".copied")


def free_name(path: Path) -> Path:
    """Return a name for the damaged set that no file has, with the time in UTC."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        number += 1
        name = f"{path.name}{_SET}{moment}" + (f"-{number}" if number > 1 else "")
        if not any(path.with_name(name + end).exists() for end in ("", *paths.COMPANIONS)):
            return path.with_name(name)


def sync_folder(path: Path) -> None:
    """Have the names of the outbox's files outlast a power cut.

    Raises:
        OSError: if that cannot be.
    """
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
