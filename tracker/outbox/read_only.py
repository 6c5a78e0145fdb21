"""`ReadOnlyOutbox`: an outbox that this user may read but not write, as on a read-only mount.

Reading such an outbox creates no file beside it and changes none.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker.errors import OutboxDamagedError, OutboxError
from tracker.outbox.files import open_files, paths, swap
from tracker.outbox.recovery import damage
from tracker.outbox.schema import create, errors
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.store.identity import Owner

_ATTEMPTS = 3
_SHARED = "mode=ro"
"""With SQLite's own locks, which need the index of the log."""
_UNCHANGING = "mode=ro&immutable=1"
"""Without locks, log and index (sqlite.org/uri.html)."""
_UNINDEXED = "mode=ro&vfs=unix-none"
"""Without locks, and with the index of the log in memory, where SQLite can create none on disk
(sqlite.org/wal.html, section "Use of WAL Without Shared-Memory")."""


class ChangedError(OutboxError):
    """The outbox was changed while it was read without its locks; reading it again may work."""


def is_read_only(path: Path) -> bool:
    """Return True if this user may not write to an outbox, a file beside it, or its folder."""
    files = [path, paths.log(path), paths.index(path), paths.write_lock(path)]
    return not os.access(path.parent, os.W_OK | os.X_OK) or not all(
        os.access(file, os.R_OK | os.W_OK) for file in files if file.exists()
    )


class ReadOnlyOutbox:
    """Reads an outbox through the same methods as `Outbox`.

    Args:
        path: The outbox.

    Raises:
        OutboxError: if it cannot be read, is not an outbox, or has an older schema and would have
            to be migrated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner: Owner
        with self.snapshot() as connection:
            if not create.is_current(connection):
                raise OutboxError(
                    f"the outbox {path} has an older schema and cannot be migrated in place: copy "
                    "it, with its -wal file if there is one, to a folder that this user may write "
                    "to, and use that path"
                )
            self.owner = identity.read(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            OutboxError: if SQLite or the operating system reports an error.
        """
        try:
            with connected(self.path) as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise errors.explain(self.path, error) from error

    reading = snapshot


def check(path: Path) -> None:
    """Check that there is a sound outbox at `path`, as far as file and log show.

    A process that writes meanwhile may make a sound log look damaged: what changes is read again,
    and what does not stop to change is in use by a process that has checked it.

    Raises:
        OutboxDamagedError: as `damage.check`.
        NotAnOutboxError: as `damage.check`.
    """
    for _ in range(_ATTEMPTS):
        before = marks(path)
        try:
            damage.check(path)
        except OutboxDamagedError:
            if marks(path) == before:
                raise
        else:
            return


@contextmanager
def connected(path: Path, check: Callable[[Path], None] = check) -> Iterator[Connection]:
    """Lend a connection to an outbox that this user may only read.

    Args:
        path: The outbox.
        check: Checks it before it is opened; called if this process does not have it open.

    Raises:
        OutboxError: if it is not an outbox, is damaged, or was changed meanwhile by a process that
            could not be locked out.
        SQLAlchemyError, OSError: if SQLite or the operating system reports an error.
    """
    create.check_file(path)
    file = swap.file_identity(path)
    if file is None:
        raise OutboxError(f"the outbox {path} was deleted while it was being opened")
    open_files.count_opened(file, if_first=lambda: check(path))
    try:
        how, before = _way(path), marks(path)
        with make_engine(path, "full", writer=False, how=how).connect() as connection:
            yield connection
        if how != _SHARED and marks(path) != before:
            raise ChangedError(
                f"the outbox {path} was changed while it was read, and this user cannot use its "
                "locks: the result may be wrong. Try again"
            )
    finally:
        open_files.count_closed(file)


def _way(path: Path) -> str:
    """Return the URI parameters with which SQLite reads everything and creates no file.

    While a process has the outbox open, its log and index are there.
    """
    log, index = paths.log(path), paths.index(path)
    if log.exists() and index.exists():
        return _SHARED
    return _UNINDEXED if paths.log_bytes(path) else _UNCHANGING


def marks(path: Path) -> list[tuple[int, int] | None]:
    """Return size and modification time of the outbox and its log, to detect changes."""
    found: list[tuple[int, int] | None] = []
    for file in (path, paths.log(path)):
        try:
            status = file.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return found
