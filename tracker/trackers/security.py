"""Security: reports, conversations left open, and whether the outbox is as it was written."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tracker import canonical, queries, validation
from tracker.errors import ValidationError
from tracker.events import SECURITY_REPORTED
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from tracker.queries.sessions import IntegrityReport, UnclosedSession

SEVERITIES = ("low", "medium", "high", "critical")
KNOWN_KINDS = (
    "access_denied",
    "content_redacted",
    "pii_detected",
    "prompt_injection",
    "secret_detected",
    "tamper_detected",
    "unclosed_sessions",
)
"""Kinds with a meaning that receivers may know; any other word or dotted name will do."""

_KIND = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*")
_MOST_REPORTED = 1_000


class SecurityTracker(BaseTracker):
    """Logs security events and looks after what the outbox holds.

    Every call is stored in the outbox before it returns, and returns the id of what it stored.

    Raises:
        ValidationError: from any call, if an argument is not allowed; nothing is stored.
        OutboxError: from any call, if the outbox cannot be read; from a logging call, if storage
            failed and `APIConfig.on_error` is "raise".
        TrackerClosedError: from any call after `close`.
    """

    def report_event(
        self,
        kind: str,
        severity: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        details: Any = None,
    ) -> str:
        """Log a security event and return its id.

        Args:
            kind: What happened: ``"access_denied"``, ``"content_redacted"``, ``"pii_detected"``,
                ``"prompt_injection"``, ``"secret_detected"``, ``"tamper_detected"``,
                ``"unclosed_sessions"``, or a word or dotted name of your own.
            severity: ``"low"``, ``"medium"``, ``"high"`` or ``"critical"``.
            session_id: The conversation it happened in; by default the current one, if the call is
                made inside `with tracker.conversation(...)`.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation.
            details: Anything else that JSON can hold. Secrets in it are masked as everywhere; it
                is kept with ``capture_content=False`` too.
        """
        data = {
            "kind": _check_kind(kind),
            "severity": validation.check_choice("severity", severity, SEVERITIES),
            "details": validation.check_json("details", details),
        }
        return self._record_about(
            SECURITY_REPORTED,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
        )

    def get_unclosed_sessions(self, older_than: timedelta | float = 3600) -> list[UnclosedSession]:
        """Return the conversations that were started or resumed and then never closed.

        Those that the outbox still holds: delivered events leave it after
        `APIConfig.retention_days`.

        Args:
            older_than: A timedelta or seconds, 0 or more: only conversations opened (started or
                last resumed) at least so long ago. Default one hour.

        Returns:
            They, the longest open first.
        """
        seconds = _check_age(older_than)
        self._check_open()
        now = time.time()
        before = int((now - min(seconds, now)) * 1000)  # nothing is older than the epoch
        return self._client.read(lambda connection: queries.sessions.unclosed(connection, before))

    def report_unclosed_sessions(
        self, older_than: timedelta | float = 3600, *, severity: str = "low"
    ) -> str | None:
        """Log one event of kind ``unclosed_sessions`` that names them.

        Its details are ``count`` and ``session_ids``: the longest open ones, at most 1,000 and as
        many as an event has room for.

        Args:
            older_than: As for `get_unclosed_sessions`. Default one hour.
            severity: ``"low"``, ``"medium"``, ``"high"`` or ``"critical"``. Default ``"low"``.

        Returns:
            The event's id; None if there are none and nothing was logged.
        """
        validation.check_choice("severity", severity, SEVERITIES)
        found = self.get_unclosed_sessions(older_than)
        if not found:
            return None
        ids = _as_fit([session.session_id for session in found], self.config.max_event_bytes // 2)
        # Not of the current conversation, wherever this is called: it is about others.
        return self._record(
            SECURITY_REPORTED,
            {
                "kind": "unclosed_sessions",
                "severity": severity,
                "details": {"count": len(found), "session_ids": ids},
            },
        )

    def verify_integrity(self) -> IntegrityReport:
        """Check every stored event's digest, the chain, the gaps in seq, and the loss account.

        Reads the whole outbox, in one snapshot; logging goes on meanwhile. The chain is checked
        under `APIConfig.chain_key`, if there is one.

        Returns:
            What was checked, and each problem: where the chain breaks, which event is not what was
            stored, and which events are missing. ``ok`` if there is none; ``proven`` if besides
            all of the chain could be checked.
        """
        self._check_open()
        key = canonical.key_bytes(self.config.chain_key)
        return self._client.read(
            partial(queries.sessions.verify.verify, keys=() if key is None else (key,))
        )


def _check_kind(value: object) -> str:
    kind = validation.check_id("kind", value)
    if not _KIND.fullmatch(kind):
        raise ValidationError(
            "kind", f"is {kind!r}; give a word or dotted name, as in 'access_denied'"
        )
    return kind


def _check_age(value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    seconds = validation.check_number("older_than", seconds)
    if seconds < 0:
        raise ValidationError("older_than", f"is {value!r}; give a timedelta or seconds, 0 or more")
    return seconds


def _as_fit(ids: list[str], room: int) -> list[str]:
    kept = []
    for session_id in ids[:_MOST_REPORTED]:
        room -= 6 * len(session_id) + 3  # a character takes 6 bytes of JSON at most
        if room < 0:
            break
        kept.append(session_id)
    return kept
