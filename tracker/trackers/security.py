"""Security: reports, unclosed conversations, and verification of the outbox."""

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
    from datetime import datetime

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
"""Kinds with a defined meaning; any other word or dotted name is allowed too."""

_KIND = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*")
_MOST_REPORTED = 1_000


class SecurityTracker(BaseTracker):
    """Logs security events, finds unclosed conversations and verifies the outbox.

    Every logging call returns the event's id, once the event is stored in the outbox.

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
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a security event and return its id.

        Args:
            kind: What happened: ``"access_denied"``, ``"content_redacted"``, ``"pii_detected"``,
                ``"prompt_injection"``, ``"secret_detected"``, ``"tamper_detected"``,
                ``"unclosed_sessions"``, or a word or dotted name of your own.
            severity: ``"low"``, ``"medium"``, ``"high"`` or ``"critical"``.
            session_id: The conversation it happened in; by default the current one, if there is
                one.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation.
            details: Additional data that JSON can represent. Secrets in it are masked as usual; it
                is kept even with ``capture_content=False``.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        data = {
            "kind": _check_kind(kind),
            "severity": validation.check_choice("severity", severity, SEVERITIES),
            "details": self._json("details", details),
        }
        return self._record_about(
            SECURITY_REPORTED,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
            timestamp=timestamp,
        )

    def get_unclosed_sessions(self, older_than: timedelta | float = 3600) -> list[UnclosedSession]:
        """Return the conversations that were started or resumed and have not been closed since.

        Only events that are still in the outbox count; delivered ones leave it after
        `APIConfig.retention_days`.

        Args:
            older_than: Minimum age as a timedelta or seconds, 0 or more, since the conversation
                was started or last resumed. Default one hour.

        Returns:
            The conversations, the longest open first.
        """
        seconds = _check_age(older_than)
        self._check_open()
        now = time.time()
        before = int((now - min(seconds, now)) * 1000)  # nothing is older than the epoch
        return self._client.read(lambda connection: queries.sessions.unclosed(connection, before))

    def report_unclosed_sessions(
        self, older_than: timedelta | float = 3600, *, severity: str = "low"
    ) -> str | None:
        """Log one event of kind ``unclosed_sessions`` that names the unclosed conversations.

        Its details are ``count`` and ``session_ids``: the longest open ones, at most 1,000 and no
        more than fit into an event.

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
        # Not logged to the current conversation, since it is about others.
        return self._record(
            SECURITY_REPORTED,
            {
                "kind": "unclosed_sessions",
                "severity": severity,
                "details": {"count": len(found), "session_ids": ids},
            },
        )

    def verify_integrity(self) -> IntegrityReport:
        """Check the digests of all stored events, the chain, gaps in seq, and the loss account.

        This reads the whole outbox in one snapshot; logging continues meanwhile. The chain is
        checked with `APIConfig.chain_key`, if there is one.

        Returns:
            What was checked, and each problem: breaks of the chain, changed events and missing
            events. ``ok`` is True if there are no problems; ``proven`` is True if, in addition,
            the whole chain could be checked.
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
        room -= 6 * len(session_id) + 3  # a character takes at most 6 bytes of JSON
        if room < 0:
            break
        kept.append(session_id)
    return kept
