"""Claims: what one process at a time does with a database, for as long as it runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tracker import ownership
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

# The server is to notice within a minute that this machine has disappeared.
_CLAIM = """
SELECT set_config('idle_in_transaction_session_timeout', '0', true),
       set_config('tcp_keepalives_idle', '30', true),
       set_config('tcp_keepalives_interval', '10', true),
       set_config('tcp_keepalives_count', '3', true),
       pg_try_advisory_xact_lock(%s)
"""


class ClaimedError(TrackerError):
    """Another process does it already."""


class FileClaim:
    """A lock on a file, which ends with the process. The file is never deleted: see `FileLock`.

    Raises:
        ClaimedError: if another process has it.
        OSError: if the file cannot be opened.
    """

    def __init__(self, path: Path, database: Path) -> None:
        self._descriptor = ownership.open_or_create(path, like=database)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise ClaimedError(f"another process has {path} locked") from None
            raise

    def check(self) -> None:
        """Do nothing: the lock ends with the process alone."""

    def release(self) -> None:
        """Let others do it."""
        os.close(self._descriptor)


class ServerClaim:
    """An advisory lock of PostgreSQL, held by a transaction that does nothing else.

    Not by a session, which PgBouncer may give to others. A transaction without writes, and with no
    statement under way, keeps no old rows from VACUUM.

    Raises:
        ClaimedError: if another session has it.
        SQLAlchemyError: if the server does not answer.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        self._connection: Connection = engine.connect()
        try:
            self._connection.begin()
            if not self._connection.exec_driver_sql(_CLAIM, (number,)).one()[-1]:
                raise ClaimedError("another session has this lock")
            self.check()
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Check that the connection is still there.

        It ends the statement before, too: one with parameters keeps its snapshot, and so old rows
        from VACUUM and new indexes from being finished, until another statement follows.

        Raises:
            SQLAlchemyError: if it is not.
        """
        self._connection.execute(text("SELECT 1"))

    def release(self) -> None:
        """Let others do it."""
        with contextlib.suppress(SQLAlchemyError):  # the connection is lost, and with it the lock
            self._connection.close()
