"""Compliance: audit records, acknowledgements of policies, and erasure on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.events import COMPLIANCE_ACKNOWLEDGED, COMPLIANCE_AUDITED, COMPLIANCE_ERASED
from tracker.trackers.audit import AuditExport

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.erasure import ErasureResult


class ComplianceTracker(AuditExport):
    """Logs audit records, exports and reports on them, and erases the data of a user.

    Every logging call returns the event's id, once the event is stored in the outbox. Delivered
    compliance events stay in the outbox for ten years unless `APIConfig.retention` says otherwise,
    and keep their content even with ``capture_content=False``.

    Raises:
        ValidationError: from any call, if an argument is not allowed; nothing is stored.
        OutboxError: from a logging call, if storage failed and `APIConfig.on_error` is "raise".
        TrackerClosedError: from any call after `close`.
    """

    def record_audit(
        self,
        action: str,
        actor: str,
        *,
        policy: str | None = None,
        legal_basis: str | None = None,
        scope: str | None = None,
        details: Any = None,
        session_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log an action for the audit trail and return the event's id.

        Args:
            action: The action, such as ``"data_exported"``.
            actor: The id of the person, service or agent that acted, at most 256 characters.
            policy: The policy that applies.
            legal_basis: The legal basis, such as ``"consent"`` or ``"GDPR Art. 6(1)(b)"``.
            scope: The body of rules, such as ``"gdpr"``, ``"hipaa"`` or ``"eu_ai_act"``.
            details: Additional data that JSON can represent.
            session_id: The conversation it concerns; by default the current one.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation. `erase_subject`
                also erases audit records about a user.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        data = {
            "action": validation.check_id("action", action),
            "actor": validation.check_id("actor", actor),
            "policy": validation.check_optional_id("policy", policy),
            "legal_basis": validation.check_optional_id("legal_basis", legal_basis),
            "scope": validation.check_optional_id("scope", scope),
            "details": self._json("details", details),
        }
        return self._record_about(
            COMPLIANCE_AUDITED,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
            timestamp=timestamp,
        )

    def acknowledge(
        self,
        policy: str,
        acknowledged_by: str,
        reason: str | None = None,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log that a person acknowledged a policy, and return the event's id.

        Args:
            policy: The policy, with its version if it has one, such as ``"ai-disclosure-2"``.
            acknowledged_by: The person's id, at most 256 characters.
            reason: The reason as text.
            session_id: The conversation in which it happened; by default the current one.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        data = {
            "policy": validation.check_id("policy", policy),
            "acknowledged_by": validation.check_id("acknowledged_by", acknowledged_by),
            "reason": None if reason is None else validation.check_text("reason", reason),
        }
        return self._record_about(
            COMPLIANCE_ACKNOWLEDGED,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
            timestamp=timestamp,
        )

    def erase_subject(self, user_id: str, reason: str | None = None) -> ErasureResult:
        """Erase the data about a user in the outbox, and have the collector do the same.

        The `data` of every event about the user, whether pending, delivered or dead, is replaced
        by ``{"erased": true}``, and the user id by None. ``compliance.erased`` events name these
        events, and the collector erases them when it receives them. An event is about a user if it
        has the user's id, also as an attribute of a span of OpenTelemetry, or if it has no user id
        but belongs to a conversation in which another event has it. Of the traces of these events,
        so is what names nobody, such as the arguments of an observed function: all of it, with
        the conversations that occur in this user's traces only; or, if other users occur in the
        trace, the spans around these events and what is inside a span of the user's. Digests,
        chain and seq do not change, so the outbox
        still verifies; neither do time, type, agent and session. What was erased cannot be guessed
        from what stays, except for events that were stored before digests had a salt
        (`ErasureResult.guessable`).

        Events that were pruned from the outbox are not named: erase them at the collector. Events
        that another process keeps in memory because the disk fails are not erased, nor are damaged
        files that were moved aside (`Health.damaged_sets`): delete those; until then `scrubbed` is
        False.

        Logging calls wait while the file is rewritten at the end, about ten seconds per GB.

        Args:
            user_id: The user's id, as it was logged.
            reason: The reason as text, for the record. Do not name the user in it.

        Returns:
            The number of erased events, the ids of the events that name them, and whether the old
            bytes are gone from the outbox's files.

        Raises:
            OutboxError: if the outbox cannot be read or written, whatever `APIConfig.on_error`
                says. The events erased until then are named; call again to erase the rest.
        """
        checked = validation.check_id("user_id", user_id)
        said: dict[str, Any] = {}
        if reason is not None:
            said["reason"] = validation.check_text("reason", reason)
        self._check_open()
        said, _ = self._redactor.apply(COMPLIANCE_ERASED, said)
        return self._client.erase(checked, said)
