"""The conversations that this process logs to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker import log, own_work, validation
from tracker.elapsed import milliseconds_since
from tracker.errors import OutboxError
from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
)
from tracker.once import Once

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.outbox import Outbox

_LOOK_UP = """
SELECT type, agent_id, user_id FROM events
WHERE session_id = ? AND type IN (?, ?, ?, ?) ORDER BY seq
"""


@dataclass
class Session:
    """A conversation: its agent and user, and whether it is over."""

    agent_id: str | None = None
    user_id: str | None = None
    known: bool = True
    over: bool = False
    started: float | None = None
    """Start on the monotonic clock; None if it was not started by this process, or earlier."""
    started_ms: int | None = None
    """Start in Unix milliseconds, if it was started earlier than it was logged."""
    warned: bool = False
    """Whether a warning was logged, or none is due any more."""

    def duration_ms(self, ended: datetime | int | None) -> float | None:
        """Return how long it lasted until a time of the past, or until now; None if unknown.

        Raises:
            ValidationError: if `ended` is no time.
        """
        if ended is not None:
            ended_ms = validation.check_timestamp("timestamp", ended)
            if self.started_ms is None or ended_ms < self.started_ms:
                return None
            return round(float(ended_ms - self.started_ms), 2)
        if self.started is None:
            return None
        return milliseconds_since(self.started)


class Sessions:
    """A bounded cache of conversations, backed by the outbox. Owns its lock; thread-safe.

    It supplies the agent and user of a message, and logs one warning per conversation that is used
    although it has ended or was never started. It never refuses an event.

    Attributes:
        most: How many conversations are kept in memory; the least recently used ones are looked up
            in the outbox again.
    """

    most = 10_000

    def __init__(self, outbox: Outbox | None) -> None:
        self._outbox = outbox
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.RLock()
        self._logged = Once(most=self.most)

    def start(
        self,
        session_id: str,
        agent_id: str,
        user_id: str | None,
        timestamp: datetime | int | None = None,
    ) -> None:
        """Add a conversation that starts now, or started at the given time."""
        session = Session(agent_id, user_id)
        if timestamp is None:
            session.started = time.monotonic()
        else:
            session.started_ms = validation.check_timestamp("timestamp", timestamp)
        self._keep(session_id, session)

    def resume(self, session_id: str) -> Session:
        """Return a conversation, marked as open again."""
        session = self.get(session_id)
        session.over = False
        return session

    def use(self, session_id: str) -> Session:
        """Return a conversation; log one warning if it is over or unknown."""
        session = self.get(session_id)
        if (session.over or not session.known) and not session.warned:
            session.warned = True
            if self._logged.is_new(session_id):  # even if it was looked up again
                log.warning(
                    "session %r %s; events logged to it are stored anyway",
                    session_id,
                    "has ended" if session.over else "was never started in this outbox",
                )
        return session

    def restart_in_child(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.RLock()

    def get(self, session_id: str) -> Session:
        """Return a conversation."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is not None:
                self._sessions.move_to_end(session_id)
                return session
        session = own_work.run(self._look_up, session_id)
        self._keep(session_id, session)
        return session

    def forget(self, session_ids: set[str | None]) -> None:
        """Look these conversations up in the outbox again when they are next used."""
        with self._lock:
            for session_id in session_ids:
                self._sessions.pop(session_id or "", None)

    def _keep(self, session_id: str, session: Session) -> None:
        with self._lock:
            self._sessions[session_id] = session
            self._sessions.move_to_end(session_id)
            if len(self._sessions) > self.most:
                self._sessions.popitem(last=False)

    def _look_up(self, session_id: str) -> Session:
        if self._outbox is None:
            return Session()
        over = (CONVERSATION_ENDED, CONVERSATION_FAILED)
        begun = (CONVERSATION_STARTED, CONVERSATION_RESUMED)
        try:
            with self._outbox.reading() as connection:
                rows = connection.exec_driver_sql(_LOOK_UP, (session_id, *begun, *over)).all()
        except OutboxError:
            # The append that follows fails as well and applies `on_error`.
            return Session()
        session = Session(known=bool(rows))
        for type_, agent_id, user_id in rows:
            session.agent_id = agent_id or session.agent_id
            session.user_id = user_id or session.user_id
            session.over = type_ in over
        return session
