"""The checks of ``tracker-sync doctor`` of where an outbox lies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING

from tracker.cli.check import OK, PROBLEM, WARNING, Check
from tracker.cli.output import size
from tracker.errors import OutboxError

if TYPE_CHECKING:
    from pathlib import Path


_LITTLE_DISK = 100_000_000


def folder(path: Path) -> list[Check]:
    """Check that only this user can use the outbox's folder and files."""
    folder = path.parent
    if not folder.exists():
        return [Check("folder", OK, f"{folder} will be created by the first event")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            Check(
                "folder",
                PROBLEM,
                f"{folder} is not writable by this user",
                "make it writable, or set SDK_OUTBOX_PATH",
            )
        ]
    return [*privacy(path), _locks(path)]


def privacy(path: Path) -> list[Check]:
    """Check that only this user can use an existing folder and the outbox in it; writes nothing."""
    from tracker.outbox import paths

    found = [_privacy("folder", path.parent, 0o700)]
    for file in paths.all_of(path):
        if file.exists():
            check = _privacy("files", file, 0o600)
            if check.status != OK:
                found.append(check)
    if len(found) == 1 and path.exists():
        found.append(Check("files", OK, f"{path.name} and its companions are private"))
    return found


def _privacy(name: str, path: Path, wanted: int) -> Check:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        return Check(
            name,
            WARNING,
            f"{path} belongs to another user (uid {status.st_uid})",
            "run this as the application's user, so that all files belong to that user",
        )
    if mode & 0o077:
        return Check(
            name,
            WARNING,
            f"{path} has mode {mode:04o}: other users can {_access(status)}",
            f"chmod {wanted:o} {path}",
        )
    return Check(name, OK, f"{path} has mode {mode:04o}")


def _access(status: os.stat_result) -> str:
    """Return what the mode of a file or folder allows to other users, who have some permission."""
    if not stat.S_ISDIR(status.st_mode):
        return "access the events"
    if status.st_mode & 0o022:
        return "move or replace files in it"
    if status.st_mode & 0o044:
        return "list the names of files in it"
    return "tell whether a name exists in it"


def _locks(path: Path) -> Check:
    """Check that file locks exclude each other here; on some network file systems they do not."""
    from tracker.outbox import FileLock

    trial = path.with_name(f".{path.name}.doctor-{os.getpid()}")
    one, other = FileLock(trial), FileLock(trial)
    try:
        works = one.try_acquire() and not other.try_acquire()
    except (OSError, OutboxError) as error:
        return Check("file lock", PROBLEM, str(error), "put the outbox on a local disk")
    finally:
        one.close()
        other.close()
        trial.unlink(missing_ok=True)
    if works:
        return Check("file lock", OK, "works")
    return Check(
        "file lock",
        PROBLEM,
        "the same lock was taken twice",
        "put the outbox on a local disk: this file system's locks do not work",
    )


def disk(path: Path) -> Check:
    """Check that the disk has room."""
    folder = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_DISK:
        return Check(
            "free disk",
            WARNING,
            f"{size(free)} at {folder}",
            "free some space; `tracker-sync prune --days 0` removes delivered events",
        )
    return Check("free disk", OK, f"{size(free)} at {folder}")


def sqlite_version() -> Check:
    """Check the version of SQLite."""
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or any(
        version[:2] == branch[:2] and version >= branch for branch in ((3, 50, 7), (3, 44, 6))
    )
    note = (
        ""
        if fixed
        else " (has the WAL-reset bug that 3.51.3, 3.50.7 and 3.44.6 fix; the tracker's write "
        "lock avoids it)"
    )
    return Check("SQLite", OK, f"{sqlite3.sqlite_version}{note}")
