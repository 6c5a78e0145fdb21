"""The SQLAlchemy engine of an outbox, with SQLite set up for our durability and locking."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import URL, create_engine, event
from sqlalchemy.pool import NullPool

from tracker.outbox.files import held_files

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from tracker.outbox.files.held_files import Hold

SYNCHRONOUS = {"full": "FULL", "process": "NORMAL"}

PAGE_BYTES = 1_024
"""The page size of new outboxes; existing ones keep theirs.

A commit writes whole pages: at ``full``, some 15 kB for an event of 0.6 kB, where it was 26 kB with
SQLite's usual pages of 4 kB, and would be 10 kB with pages of 512 bytes, which most events outgrow.
"""

WAL_BYTES = 2_048_000
"""Size of the write-ahead log from which on a commit also checkpoints.

With 4 MB, a commit wrote 2 % less, but on a full disk the ballast was too small for what a
checkpoint has to add to the file; with 1 MB, one call in a hundred met a checkpoint.
"""

_SILENT = "tracker"
# Nobody is told of the statements of an outbox, whatever the level of SQLAlchemy's own loggers: a
# thread that leads would wait for a handler's lock, whose holder may wait for the outbox.
for _name in ("engine.Engine", "pool.impl.NullPool"):
    logging.getLogger(f"sqlalchemy.{_name}.{_SILENT}").setLevel(logging.CRITICAL + 1)

_FULL = 2  # as SQLite reports it

_WAL_LIMIT_BYTES = 16 * 1024 * 1024


class OutboxConnection(sqlite3.Connection):
    """A connection that rolls back before it closes.

    sqlite3 delays a close, and keeps every lock of the transaction, until the last cursor is gone;
    and SQLAlchemy closes on Ctrl-C, when a traceback still refers to one.

    Attributes:
        busy_seconds: How long to wait for programs that hold SQLite's own locks; our writers use a
            lock file.
        held: The files that it uses, once `hold` was called.
    """

    busy_seconds = 5.0
    held: Hold | None = None
    _ended = False

    def hold(self, path: Path, *, find: bool) -> None:
        """Hold the files, after a read that makes SQLite open the log; see `held_files.hold`.

        A copy made by ``VACUUM INTO`` has no log until it is written to.

        SQLite shows a commit once it is flushed, except to who opens the log after everybody else
        has died: what they had written is then shown, flushed or not. So a connection that is kept
        flushes the log if its own commits are flushed: it relies on what it sees.

        Raises:
            OSError: if the log cannot be flushed.
        """
        self.execute("SELECT 1 FROM sqlite_master LIMIT 1").close()
        if self.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            return
        self.held = held_files.hold(path, find=find)
        if find and self.execute("PRAGMA synchronous").fetchone() == (_FULL,):
            self.held.files.flush_log()

    def close(self) -> None:
        """Close; see `Hold.close`. Only the first call counts: it may be kept open on purpose."""
        if self._ended:
            return
        self._ended = True
        held, self.held = self.held, None
        if held is None:
            self._close()
        else:
            held.close(self, self._close)

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # already closed, or the disk fails
            self.rollback()
        super().close()


# Damaged text must not raise: that would stop every reader there. Its digest shows the change.
_decode = functools.partial(str, encoding="utf-8", errors="replace")


def make_engine(path: Path, durability: str, *, writer: bool, how: str = "mode=rw") -> Engine:
    """Return an engine without a pool: the caller that connects owns the connection.

    Only a writer checkpoints, as part of its commits, and therefore always under the outbox's write
    lock: two checkpoints, or a checkpoint and a WAL reset, never overlap (SQLite before 3.51.3
    could corrupt the file then: sqlite.org/wal.html, section "The WAL-Reset Bug").

    Args:
        path: The file, which must exist.
        durability: As in `APIConfig.durability`.
        writer: Whether its connections may write.
        how: As in `connect`; see `read_only`.
    """
    in_memory = [sqlite3.connect(":memory:", check_same_thread=False)]
    absolute = path.absolute()

    def create() -> sqlite3.Connection:
        return in_memory.pop() if in_memory else connect(absolute, how)

    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # names the file in errors; it is never parsed
        creator=create,
        poolclass=NullPool,
        # A connection rolls back when it closes. SQLAlchemy would also do so on one that an
        # interrupted call has closed, and log the error; logging can block a thread that leads.
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",  # transactions begin explicitly: BEGIN IMMEDIATE
        logging_name=_SILENT,
        pool_logging_name=_SILENT,
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.text_factory = _decode
        cursor = connection.cursor()
        try:
            if "vfs=unix-none" in how:  # it shares the index of the log with nobody
                cursor.execute("PRAGMA locking_mode=EXCLUSIVE")
            for pragma in _pragmas(durability, writer=writer):
                cursor.execute(f"PRAGMA {pragma}")
            if writer:
                (page_bytes,) = cursor.execute("PRAGMA page_size").fetchone()
                cursor.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // page_bytes}")
        except UnicodeDecodeError as error:  # SQLite's message quotes the damaged name
            raise sqlite3.DatabaseError("malformed database schema") from error
        cursor.close()

    # SQLAlchemy makes an engine's first connection under a lock that is not reentrant: a signal
    # handler that logs meanwhile would wait for itself. So the first one is not to the outbox.
    engine.connect().close()
    return engine


def connect(path: Path, how: str) -> OutboxConnection:
    """Return a connection to an existing file, whatever bytes its path contains.

    Only a URI can tell SQLite not to create a missing file. Every byte of the path that could have
    a meaning in a URI is percent-encoded, including bytes that are not UTF-8.

    Args:
        path: The file, as an absolute path.
        how: SQLite's URI parameters (sqlite.org/uri.html).

    Raises:
        sqlite3.Error: if the file cannot be opened.
    """
    return sqlite3.connect(
        f"file://{quote(os.fsencode(path))}?{how}",
        uri=True,
        check_same_thread=False,
        timeout=OutboxConnection.busy_seconds,
        factory=OutboxConnection,
    )


def _pragmas(durability: str, *, writer: bool) -> list[str]:
    common = [
        "trusted_schema=OFF",  # SQL hidden in a manipulated schema cannot call risky functions
        "cell_size_check=ON",
        f"synchronous={SYNCHRONOUS[durability]}",
        "fullfsync=ON",  # macOS: without it a flush stops at the drive's cache
        "checkpoint_fullfsync=ON",
        "temp_store=MEMORY",
    ]
    if writer:
        return [
            *common,
            f"journal_size_limit={_WAL_LIMIT_BYTES}",
            "secure_delete=ON",  # overwrite removed rows; `scrub` does the rest
        ]
    return [*common, "wal_autocheckpoint=0", "query_only=ON"]
