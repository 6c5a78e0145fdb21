"""`KeyUses`: when keys were last used, noted in memory and written now and then."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

from tracker.collector.database import StorageError
from tracker.collector.key_tables import key_uses

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.collector.store import Store

logger = logging.getLogger(__name__)

COARSE_MS = 600_000
"""A key's use is written at most once in so long, by all collectors on a database together."""
_PAUSE_SECONDS = 60.0
_WRITE_SECONDS = 5.0
_ROWS = 1_000
"""How many uses are written in one transaction, so that batches get between two of them."""


class KeyUses:
    """Writes when keys were last used, in a thread that no request waits for.

    Any thread may call any method. What is noted in the last minute before the process is killed
    is not written.

    Args:
        store: The keys. Its owner closes this first.
        now_ms: Returns the time, Unix milliseconds.
    """

    def __init__(
        self, store: Store, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._noted: dict[int, int] = {}
        self._unwritten: dict[int, int] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, key_id: int) -> None:
        """Note that a key is used now. This takes microseconds, and writes nothing."""
        now = self._now_ms()
        with self._lock:
            noted = self._noted.get(key_id)
            if noted is not None and abs(now - noted) < COARSE_MS:
                return
            self._noted[key_id] = self._unwritten[key_id] = now
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="key uses", daemon=True)
                self._thread.start()

    def write(self) -> None:
        """Write what was noted; what cannot be written is kept for the next time."""
        with self._writing:
            with self._lock:
                unwritten, self._unwritten = self._unwritten, {}
                oldest = self._now_ms() - COARSE_MS
                self._noted = {key: at for key, at in self._noted.items() if at > oldest}
            rows = sorted(unwritten.items())
            try:
                while rows:
                    self._write(rows[:_ROWS])
                    del rows[:_ROWS]
            except StorageError as error:
                logger.warning("the last use of keys was not written: %s", error)
                with self._lock:
                    self._unwritten = {**dict(rows), **self._unwritten}

    def close(self) -> None:
        """Write what was noted, and nothing more from then on."""
        self._closed.set()
        self.write()

    def _run(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            self.write()

    def _write(self, rows: list[tuple[int, int]]) -> None:
        made = postgresql.insert if self._store.dialect == "postgresql" else sqlite.insert
        statement = made(key_uses)
        used = key_uses.c.last_used_at_ms
        new = statement.excluded.last_used_at_ms
        statement = statement.on_conflict_do_update(
            index_elements=[key_uses.c.key_id],
            set_={"last_used_at_ms": new},
            where=used <= new - COARSE_MS,
        )
        values = [{"key_id": key_id, "last_used_at_ms": at} for key_id, at in rows]
        with self._store.writing("keys", _WRITE_SECONDS) as connection:
            connection.execute(statement, values)
