"""`Sessions`: who is signed in at the pages, kept in the database so that replicas share them."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from tracker.collector.database import StorageError
from tracker.collector.key_tables import are_valid
from tracker.collector.keys import ApiKey, described
from tracker.collector.tables import api_keys, ui_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.collector.store import Store

logger = logging.getLogger(__name__)

MOST_MS = 12 * 3_600_000
"""How long somebody stays signed in."""
IDLE_MS = 3_600_000
"""How long somebody stays signed in who asks for no page."""
_NOTED_MS = 60_000
"""Use is noted at most once in so long, because noting it is a write."""
_BYTES = 32
_FIND_SECONDS = 5.0
_NOTE_SECONDS = 2.0
_SCOPE = "ui sessions"


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in.

    Attributes:
        key: The key that was given, as it is described now.
        csrf: The value that every form has to carry.
        id_hash: The name of the session in the database.
        used_at_ms: When a page was last asked for, as noted.
    """

    key: ApiKey
    csrf: str
    id_hash: str
    used_at_ms: int

    @property
    def whose(self) -> str:
        """The name under which its queries are counted, as those of other requests are."""
        return f"operator {self.key.id}" if self.key.client_id is None else self.key.client_id


class Sessions:
    """The sessions in a store. Any thread may call any method; the store owns the connections.

    Args:
        store: The store.
        now_ms: Returns the time, Unix milliseconds.
    """

    def __init__(
        self, store: Store, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._store = store
        self._now_ms = now_ms

    def begin(self, key: ApiKey) -> str:
        """Begin a session, and return the secret that opens it. Those that ended are removed.

        Raises:
            StorageError: if the database fails.
        """
        secret, now = secrets.token_urlsafe(_BYTES), self._now_ms()
        values = {
            "id_hash": _hashed(secret),
            "key_id": key.id,
            "csrf": secrets.token_urlsafe(_BYTES),
            "ends_at_ms": now + MOST_MS,
            "used_at_ms": now,
        }
        over = (ui_sessions.c.ends_at_ms <= now) | (ui_sessions.c.used_at_ms <= now - IDLE_MS)
        with self._store.writing(_SCOPE) as connection:
            connection.execute(delete(ui_sessions).where(over))
            connection.execute(insert(ui_sessions).values(**values))
        return secret

    def find(self, secret: str) -> Visitor | None:
        """Return who is signed in by a secret; None if nobody is, or its key opens no pages.

        Raises:
            StorageError: if the database fails.
        """
        now = self._now_ms()
        session = ui_sessions.c
        query = (
            select(session.id_hash, session.csrf, session.used_at_ms, api_keys)
            .join(api_keys, api_keys.c.id == session.key_id)
            .where(
                session.id_hash == _hashed(secret),
                session.ends_at_ms > now,
                session.used_at_ms > now - IDLE_MS,
                are_valid(now),
            )
        )
        with self._store.reading(_FIND_SECONDS) as connection:
            row = connection.execute(query).mappings().first()
        if row is None or not (key := described(row)).may_read:
            return None
        return Visitor(key, row["csrf"], row["id_hash"], row["used_at_ms"])

    def note_use(self, visitor: Visitor) -> None:
        """Note that somebody asks for a page, unless that was noted just before."""
        now = self._now_ms()
        if now - visitor.used_at_ms < _NOTED_MS:
            return
        statement = update(ui_sessions).where(ui_sessions.c.id_hash == visitor.id_hash)
        try:
            with self._store.writing(_SCOPE, _NOTE_SECONDS) as connection:
                connection.execute(statement.values(used_at_ms=now))
        except StorageError as error:
            # What can still be read is shown, as long as the session lasts.
            logger.warning("the use of a session was not noted: %s", error)

    def end(self, visitor: Visitor) -> None:
        """End a session.

        Raises:
            StorageError: if the database fails.
        """
        with self._store.writing(_SCOPE) as connection:
            connection.execute(delete(ui_sessions).where(ui_sessions.c.id_hash == visitor.id_hash))


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
