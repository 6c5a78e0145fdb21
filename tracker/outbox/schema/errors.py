"""What errors of SQLite and of the operating system mean for an outbox."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.exc import NoResultFound

from tracker.errors import OutboxDamagedError, OutboxError
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from pathlib import Path

# SQLite's messages for a damaged file (SQLITE_NOTADB, SQLITE_CORRUPT). Its error codes would be
# more reliable, but Python provides them only from 3.11 on. If one of our own tables is missing, it
# was on a lost page; any other name that SQLite does not know is a mistake in a query.
_DAMAGE = ("file is not a database", "malformed")


_LOST_TABLE = re.compile(rf"no such table: (main\.)?({'|'.join(tables.metadata.tables)})$")


_FULL = ("disk is full", "No space left on device", "Disk quota exceeded")


def explain(path: Path, error: Exception) -> OutboxError:
    """Return the package's own error for an error of SQLite or the system about `path`."""
    if isinstance(error, OutboxError):
        return error
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, NoResultFound):  # a row that every outbox has
        return OutboxDamagedError(f"the outbox {path} is damaged: a row is missing")
    if isinstance(cause, sqlite3.DatabaseError) and is_damage(str(cause)):
        return OutboxDamagedError(f"the outbox {path} is damaged: {cause}")
    return OutboxError(f"the outbox {path} failed: {cause}")


def is_damage(said: str) -> bool:
    """Return True if SQLite's message says that the file is damaged."""
    return any(each in said for each in _DAMAGE) or _LOST_TABLE.match(said) is not None


def is_disk_full(error: Exception) -> bool:
    """Return True if storage failed because the disk is full."""
    return any(said in str(error) for said in _FULL)


def is_unreadable(error: Exception) -> bool:
    """Return True if an error is about reading the source, not about writing its copy."""
    return is_damage(str(error)) or "disk I/O error" in str(error)
