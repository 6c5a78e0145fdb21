"""`pages`: an outbox's files as they lie on disk, perhaps while others write to them."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tracker.outbox.sqlite import file_format

if TYPE_CHECKING:
    from pathlib import Path


class GrowingLog(io.BytesIO):
    """A log that another process appends to while it is read."""

    def __init__(self, log: bytes, length: int) -> None:
        super().__init__(log[:length])
        self._rest = log[length:]

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is not None and len(found) < size:
            at = self.tell()
            self.seek(0, io.SEEK_END)
            self.write(self._rest)
            self._rest = b""
            self.seek(at)
        return found


def test_a_log_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """Its end is where it was met: in the middle of a frame's header, say."""
    path = tmp_path / "any.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        first = path.with_name(f"{path.name}-wal").stat().st_size
        connection.execute("INSERT INTO t VALUES (1)")
        log = path.with_name(f"{path.name}-wal").read_bytes()
    whole = file_format.frames(io.BytesIO(log[:first]), file_format.log_page_bytes(io.BytesIO(log)))
    assert whole
    assert file_format.frames(GrowingLog(log, first + 10), 4096) == whole
