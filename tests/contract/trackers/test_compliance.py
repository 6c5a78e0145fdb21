"""Audit records, acknowledgements, and what `erase_subject` says; see also test_erasure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tracker import (
    AgentPerformanceTracker,
    ComplianceTracker,
    ErasureResult,
    Tracker,
    TrackerClosedError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker.testing import RecordingDestination


@pytest.fixture
def compliance(
    config: MakeConfig, destination: RecordingDestination
) -> Iterator[ComplianceTracker]:
    with ComplianceTracker(config(), destination=lambda: destination) as tracker:
        yield tracker


def sent(tracker: ComplianceTracker, destination: RecordingDestination) -> dict[str, Any]:
    tracker.flush()
    return destination.events[-1]


def test_an_audit_record_says_what_was_given(
    compliance: ComplianceTracker, destination: RecordingDestination
) -> None:
    """By the protocol's names; what was not given is left out."""
    event_id = compliance.record_audit("data_exported", "ops-1")
    event = sent(compliance, destination)
    assert (event["event_id"], event["type"]) == (event_id, "compliance.audited")
    assert event["data"] == {"action": "data_exported", "actor": "ops-1"}
    given: dict[str, Any] = {
        "policy": "retention-3",
        "legal_basis": "consent",
        "scope": "gdpr",
        "details": {"rows": [1, 2]},
    }
    compliance.record_audit("erased", "ops-1", agent_id="a", **given)
    event = sent(compliance, destination)
    assert event["data"] == {"action": "erased", "actor": "ops-1", **given}
    assert event["agent_id"] == "a"


def test_an_acknowledgement_in_a_conversation(
    compliance: ComplianceTracker, config: MakeConfig, destination: RecordingDestination
) -> None:
    """Agent and user are those of the conversation."""
    with AgentPerformanceTracker(config()) as performance:
        session = performance.start_conversation("agent-1", user_id="u")
    compliance.acknowledge("ai-disclosure-2", "u", "clicked", session_id=session)
    event = sent(compliance, destination)
    assert event["type"] == "compliance.acknowledged"
    assert event["data"] == {
        "policy": "ai-disclosure-2",
        "acknowledged_by": "u",
        "reason": "clicked",
    }
    assert (event["agent_id"], event["user_id"]) == ("agent-1", "u")


def test_an_erasure_names_the_user_by_digest_only(
    compliance: ComplianceTracker, destination: RecordingDestination
) -> None:
    """And secrets in the reason are masked, as everywhere."""
    key = "sk-" + "proj-" + "A1b2C3d4" * 6
    result = compliance.erase_subject("jane@example.com", f"key {key}")
    event = sent(compliance, destination)
    digest = hashlib.sha256(bytes.fromhex(result.salt) + b"jane@example.com").hexdigest()
    assert result.subject == event["data"]["subject"] == digest
    assert result.salt not in str(event)
    assert compliance.erase_subject("jane@example.com").subject != result.subject
    assert event["event_id"] == result.event_ids[0]
    assert "jane" not in str(event)
    assert key not in str(event)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda c: c.record_audit("", "a"), "action"),
        (lambda c: c.record_audit("a", None), "actor"),
        (lambda c: c.record_audit("a", "a", scope=5), "scope"),
        (lambda c: c.record_audit("a", "a", details={"x": {1}}), "details"),
        (lambda c: c.acknowledge("", "a"), "policy"),
        (lambda c: c.acknowledge("p", ""), "acknowledged_by"),
        (lambda c: c.acknowledge("p", "a", 5), "reason"),
        (lambda c: c.erase_subject(""), "user_id"),
        (lambda c: c.erase_subject(7), "user_id"),
        (lambda c: c.erase_subject("u", 7), "reason"),
    ],
)
def test_wrong_arguments_store_nothing(
    compliance: ComplianceTracker, destination: RecordingDestination, call: Any, argument: str
) -> None:
    """And name what was wrong."""
    with pytest.raises(ValidationError, match=f"^{argument}"):
        call(compliance)
    compliance.flush()
    assert destination.events == []


def test_closed_and_disabled(config: MakeConfig) -> None:
    """A closed tracker refuses; a disabled one has nothing to erase."""
    with Tracker(config(disabled=True)) as tracker:
        assert tracker.compliance.record_audit("a", "b")
        assert isinstance(tracker.compliance.erase_subject("u"), ErasureResult)
        assert tracker.compliance.erase_subject("u").erased == 0
    with pytest.raises(TrackerClosedError):
        tracker.compliance.erase_subject("u")
