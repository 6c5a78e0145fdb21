"""Whether the file at an outbox's path is a sound outbox, a damaged one, or no outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.errors import NotAnOutboxError, OutboxDamagedError
from tracker.outbox.files import paths
from tracker.outbox.files.open_files import ReplacedError
from tracker.outbox.schema import create, guard, tables
from tracker.outbox.sqlite import file_format
from tracker.outbox.store.identity import Owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracker.outbox.store.transaction import Transaction

LOCK_MARK = b"The write lock of the tracker outbox beside it. Do not delete it while in use.\n"
"""Content of the lock file: it shows that the file beside it is an outbox, however damaged."""


def is_ours(path: Path) -> bool:
    """Return True if a file whose header is damaged was an outbox.

    It was if the lock file beside it has our mark, if page 1 in the file or its log still has our
    application id, or if it contains an event that matches its digest: no file of another program
    has any of these. Changes nothing.
    """
    lock = paths.write_lock(path)
    if not lock.is_symlink() and lock.is_file():
        with lock.open("rb") as file:
            if file.read(len(LOCK_MARK)) == LOCK_MARK:
                return True
    with path.open("rb") as file:
        if int.from_bytes(file.read(72)[68:], "big") == tables.APPLICATION_ID:
            return True
    from tracker.outbox.recovery import salvage  # with its imports: only if a file is damaged

    with salvage.opened(path) as found:
        return found.count > 0


def owner_of_damaged(path: Path) -> Owner:
    """Return the owner of a damaged outbox; its id and age are unknown.

    Raises:
        NotAnOutboxError: if the file was not an outbox.
        OutboxDamagedError: if the owner cannot be read.
    """
    from tracker.outbox.recovery import salvage  # with its imports: only if a file is damaged

    with salvage.opened(path) as found:
        books = found.books
    if books.client_id is not None and books.base_url is not None:
        return Owner("", books.client_id, books.base_url, 0)
    if is_ours(path):
        raise ownerless(path)
    raise NotAnOutboxError(f"{path} is not a SQLite file or not an outbox; it was not changed")


def ownerless(path: Path) -> OutboxDamagedError:
    """Return the error for a damaged outbox whose owner cannot be read."""
    return OutboxDamagedError(
        f"the outbox {path} is damaged, and its owner cannot be read; it was not changed. "
        "The next application that opens it salvages what can be read"
    )


def check(path: Path) -> None:
    """Check, before SQLite opens it, that `path` is a sound outbox, or empty.

    Like `create.recognise`, it must not be called for a file that this process has open.

    Raises:
        OutboxDamagedError: if it is an outbox whose header or log is damaged.
        NotAnOutboxError: if it is anything else.
    """
    try:
        create.recognise(path)
    except NotAnOutboxError as error:
        if is_ours(path):
            raise OutboxDamagedError(f"the header of the outbox {path} is damaged") from error
        raise
    log_size = paths.log_bytes(path)
    if not path.stat().st_size and log_size and is_ours(path):  # SQLite would delete the log
        raise OutboxDamagedError(f"the outbox {path} is gone, but its write-ahead log is not")
    if path.stat().st_size and log_size and file_format.log_is_cut(path):
        raise OutboxDamagedError(f"the write-ahead log of the outbox {path} is damaged")


def check_in_use(path: Path) -> Callable[[Transaction], None]:
    """Return the job that checks that bookkeeping, file and log are plausible.

    File and log together must be large enough for all the pages there should be.
    """

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        guard.check_values(connection)
        count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        try:
            found = path.stat().st_size + paths.log_bytes(path)
        except (FileNotFoundError, NotADirectoryError) as error:  # after the write began
            raise ReplacedError(f"the outbox {path} was deleted or replaced") from error
        if count * size > found:
            raise OutboxDamagedError(f"the outbox {path} was truncated")

    return job
