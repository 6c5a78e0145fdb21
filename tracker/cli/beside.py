"""The outboxes in a folder: each application, client id and base URL has its own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tracker.cli.context import Target, connected, find, left_of, read_owner, uploader_runs
from tracker.config.otlp import protocol_of
from tracker.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.cli.command import Place

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Found:
    """An outbox in a folder. What cannot be read of it is None or 0.

    Attributes:
        path: The file.
        client_id: Its client id.
        base_url: The collector that it uploads to.
        outbox_id: Its id.
        pending: Number of pending events.
        dead: Number of dead letters.
        oldest_pending_ms: When the first pending event was logged, Unix milliseconds.
        last_success_ms: Time of the last receipt, Unix milliseconds.
        size_bytes: Size of its file and of SQLite's files beside it.
        uploader_running: Whether a process uploads from it.
        backup: Whether it is a backup, which neither uploads nor takes events.
        error: Why it cannot be read.
    """

    path: Path
    client_id: str | None = None
    base_url: str | None = None
    outbox_id: str | None = None
    pending: int = 0
    dead: int = 0
    oldest_pending_ms: int | None = None
    last_success_ms: int | None = None
    size_bytes: int = 0
    uploader_running: bool = False
    backup: bool = False
    error: str | None = None

    @property
    def command(self) -> str:
        """The command that sends its pending events."""
        return f"tracker-sync --outbox {shlex.quote(str(self.path))} flush"


def outboxes_in(folder: Path) -> list[Found]:
    """Return the outboxes in a folder, by name; those that cannot be read say why.

    Files of other programs are left out. None of the outboxes may be open in this process: the
    first bytes of each are read, which would release SQLite's locks.

    Raises:
        OutboxError: if the folder cannot be read.
    """
    return [_look(path) for path in paths_in(folder)]


def paths_in(folder: Path, known: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the paths of the outboxes in a folder, without those that are known.

    One that is gone or empty, but for its write-ahead log, is an outbox too. Must be called as
    `outboxes_in`, but the known ones may be open.

    Raises:
        OutboxError: if the folder cannot be read.
    """
    try:
        files = list(folder.iterdir())  # glob would take a forbidden folder for an empty one
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutboxError(f"the folder {folder} cannot be read: {error.strerror}") from error
    named = {file.with_name(file.name.removesuffix("-wal")) for file in files}
    for path in sorted(file for file in named if file.suffix == ".sqlite3"):
        if (
            path not in known
            and not path.is_symlink()
            and (_is_left(path) or (path.is_file() and _is_ours(path)))
        ):
            yield path


def to_upload(path: Path, place: Place) -> Target | None:
    """Return the outbox at `path` to upload from, for its own client id and base URL.

    Return None for a backup, from which nothing is uploaded.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
        OutboxError: if the file cannot be read, or is not an outbox.
    """
    left = left_of(path)
    if left is not None:
        raise OutboxError(left)
    if _look(path).backup:
        return None
    owner = read_owner(path)
    return find(
        replace(
            place,
            outbox=str(path),
            client_id=owner.client_id,
            base_url=owner.base_url,
            protocol=protocol_of(owner.base_url),
        ),
        uploads=True,
    )


def waiting_beside(path: Path) -> list[Found]:
    """Return the other outboxes in the folder of `path` that have pending events to upload."""
    return [other for other in others_beside(path) if other.pending > 0 and not other.backup]


def others_beside(path: Path) -> list[Found]:
    """Return the other outboxes in the folder of `path`; none if it cannot be read."""
    try:
        return [_look(other) for other in paths_in(path.parent, known=(path,))]
    except OutboxError:
        return []


def _is_left(path: Path) -> bool:
    """Return True for an outbox of which no more than the log is left, and our lock file."""
    from tracker.outbox import paths

    return left_of(path) is not None and paths.write_lock(path).exists()


def _is_ours(path: Path) -> bool:
    """Return False for a file that is empty or another program's, as far as its header tells."""
    from tracker.outbox import paths, tables

    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return True  # opening it will say what is wrong
    if header.startswith(_SQLITE):
        return int.from_bytes(header[68:72], "big") == tables.APPLICATION_ID
    # A damaged header: it is ours if our lock file is beside it.
    return bool(header) and paths.write_lock(path).exists()


def _look(path: Path) -> Found:
    from sqlalchemy.exc import SQLAlchemyError

    from tracker.outbox import create, errors

    left = left_of(path)
    if left is not None:
        return Found(path, size_bytes=_size(path), error=left)
    try:
        create.recognise(path)
        with connected(path) as connection:
            create.is_current(connection)
            return _read(path, connection)
    except (SQLAlchemyError, OSError, OutboxError) as error:
        explained = error if isinstance(error, OutboxError) else errors.explain(path, error)
        return Found(path, size_bytes=_size(path), error=str(explained))


def _read(path: Path, connection: Connection) -> Found:
    from tracker.outbox import backup, identity, ledger

    whose, book = identity.read(connection), ledger.read(connection)
    oldest = None
    if book.pending:
        oldest = connection.exec_driver_sql(
            "SELECT timestamp_ms FROM pending ORDER BY seq LIMIT 1"
        ).scalar()
    return Found(
        path,
        whose.client_id,
        whose.base_url,
        whose.outbox_id,
        pending=book.pending,
        dead=book.dead,
        oldest_pending_ms=oldest if isinstance(oldest, int) else None,  # damage may be any type
        last_success_ms=connection.exec_driver_sql(
            "SELECT last_success_ms FROM sync_state"
        ).scalar(),
        size_bytes=_size(path),
        uploader_running=uploader_runs(path),
        backup=backup.made_at_ms(connection) is not None,
    )


def _size(path: Path) -> int:
    from tracker.outbox import status

    try:
        return sum(status.file_sizes(path).values())
    except OSError:
        return 0
