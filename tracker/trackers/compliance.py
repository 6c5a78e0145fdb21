"""Compliance: audit records, acknowledgements of policies, and erasure on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.events import COMPLIANCE_ACKNOWLEDGED, COMPLIANCE_AUDITED, COMPLIANCE_ERASED
from tracker.trackers.audit import AuditExport

if TYPE_CHECKING:
    from tracker.erasure import ErasureResult


class ComplianceTracker(AuditExport):
    """Logs what has to be shown later, exports it, and erases what has to be forgotten.

    Every logging call is stored in the outbox before it returns, and returns the id of what it
    stored. Delivered compliance events stay in the outbox for ten years, unless
    `APIConfig.retention` says otherwise, and keep their words with ``capture_content=False`` too.

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
    ) -> str:
        """Log that something was done that may have to be accounted for, and return its id.

        Args:
            action: What was done, as in ``"data_exported"``.
            actor: Who did it: a person's, service's or agent's id, at most 256 characters.
            policy: The policy it was done under.
            legal_basis: What allows it, as in ``"consent"`` or ``"GDPR Art. 6(1)(b)"``.
            scope: The body of rules, as in ``"gdpr"``, ``"hipaa"`` or ``"eu_ai_act"``.
            details: Anything else that JSON can hold.
            session_id: The conversation it concerns; by default the current one.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation. `erase_subject`
                erases audit records about a user too.
        """
        data = {
            "action": validation.check_id("action", action),
            "actor": validation.check_id("actor", actor),
            "policy": validation.check_optional_id("policy", policy),
            "legal_basis": validation.check_optional_id("legal_basis", legal_basis),
            "scope": validation.check_optional_id("scope", scope),
            "details": validation.check_json("details", details),
        }
        return self._record_about(
            COMPLIANCE_AUDITED,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
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
    ) -> str:
        """Log that somebody acknowledged a policy, and return the event's id.

        Args:
            policy: The policy, with its version if it has one, as in ``"ai-disclosure-2"``.
            acknowledged_by: Who did: an id, at most 256 characters.
            reason: Why, in words.
            session_id: The conversation it happened in.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation.
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
        )

    def erase_subject(self, user_id: str, reason: str | None = None) -> ErasureResult:
        """Erase what the outbox holds about a user, and have the collector do the same.

        The `data` of every event about the user, pending, delivered or dead, becomes
        ``{"erased": true}``; ``compliance.erased`` events name those events, and the collector
        erases them when it receives these. About a user are the events that name the id, and those
        that name no user but a conversation in which another event names the id. Digests, chain
        and seq stay as they were, so everything still verifies; so do time, type and ids, the user
        id included, for the digest is made over them: use pseudonymous user ids.

        Events that were pruned here are not named: erase those at the collector. Events that
        another process keeps in memory because the disk fails are not reached, nor damaged files
        that were kept aside (`Health.damaged_sets`): delete those; until then `scrubbed` is False.

        Logging calls wait while the file is written anew at the end: about ten seconds per GB.

        Args:
            user_id: The user, as it was given when logging.
            reason: Why, in words, for the record. Do not name the user in it.

        Returns:
            How many events were erased, the ids of the events that name them, and whether the old
            bytes are gone from the outbox's files.

        Raises:
            OutboxError: if the outbox cannot be read or written, whatever `APIConfig.on_error`
                says. What was erased by then is named; call again for the rest.
        """
        checked = validation.check_id("user_id", user_id)
        said: dict[str, Any] = {}
        if reason is not None:
            said["reason"] = validation.check_text("reason", reason)
        self._check_open()
        said, _ = self._redactor.apply(COMPLIANCE_ERASED, said)
        return self._client.erase(checked, said)
