"""`ReadOnlyOutbox`: an outbox that this user may read but not write, as on a read-only mount.

Whoever only reads such an outbox makes no file beside it and changes none.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker.errors import OutboxError
from tracker.outbox.files import open_files, paths, swap
from tracker.outbox.recovery import damage
from tracker.outbox.schema import create, errors
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.store.identity import Owner

_SHARED = "mode=ro"
"""With SQLite's own locks, which need the log's index."""
_UNCHANGING = "mode=ro&immutable=1"
"""Without locks, log and index (sqlite.org/uri.html)."""
_UNINDEXED = "mode=ro&vfs=unix-none"
"""Without locks, and with an index of the log in memory: SQLite can make none beside it
(sqlite.org/wal.html, section "Use of WAL Without Shared-Memory")."""


def is_read_only(path: Path) -> bool:
    """Return True if this user may not write to an outbox, a file beside it, or its folder."""
    files = [path, paths.log(path), paths.index(path), paths.write_lock(path)]
    return not os.access(path.parent, os.W_OK | os.X_OK) or not all(
        os.access(file, os.R_OK | os.W_OK) for file in files if file.exists()
    )


class ReadOnlyOutbox:
    """Reads an outbox as `OutboxFile` does, by the same methods.

    Args:
        path: The outbox.

    Raises:
        OutboxError: if it cannot be read, is not an outbox, or is one of an older version, which
            would have to be migrated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner: Owner
        with self.snapshot() as connection:
            if not create.is_current(connection):
                raise OutboxError(
                    f"the outbox {path} is one of an older version and cannot be migrated where it "
                    "is: copy it, with its -wal if there is one, to a folder that this user may "
                    "write to, and give that path"
                )
            self.owner = identity.read(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            OutboxError: if SQLite or the system failed.
        """
        try:
            with connected(self.path) as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise errors.explain(self.path, error) from error

    reading = snapshot


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    """Lend a connection to an outbox that this user may only read.

    Raises:
        OutboxError: if it is no outbox, is damaged, or was changed meanwhile by somebody who could
            not be kept from it.
        SQLAlchemyError, OSError: if SQLite or the system failed.
    """
    create.check_file(path)
    file = swap.file_identity(path)
    if file is None:
        raise OutboxError(f"the outbox {path} was deleted at once")
    open_files.entered(file, if_first=lambda: damage.check(path))
    try:
        how, before = _way(path), _marks(path)
        with make_engine(path, "full", writer=False, how=how).connect() as connection:
            yield connection
        if how != _SHARED and _marks(path) != before:
            raise OutboxError(
                f"the outbox {path} was changed while it was read, and this user can take no part "
                "in its locks: what was read may be wrong. Try again"
            )
    finally:
        open_files.left(file)


def _way(path: Path) -> str:
    """Return the URI parameters by which SQLite reads all there is and makes no file.

    Whoever has an outbox open has log and index beside it.
    """
    log, index = paths.log(path), paths.index(path)
    if log.exists() and index.exists():
        return _SHARED
    return _UNINDEXED if paths.log_bytes(path) else _UNCHANGING


def _marks(path: Path) -> list[tuple[int, int] | None]:
    """Return size and time of the outbox and of its log, by which a change shows."""
    marks: list[tuple[int, int] | None] = []
    for file in (path, paths.log(path)):
        try:
            found = file.stat()
        except FileNotFoundError:
            marks.append(None)
        else:
            marks.append((found.st_size, found.st_mtime_ns))
    return marks
