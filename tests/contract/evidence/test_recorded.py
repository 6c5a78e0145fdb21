"""What trackers really record is proved, before and after an erasure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.contract.evidence.bundles import Device, check, members
from tracker import Tracker
from tracker.evidence.contents import USER, seqs
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


def exported(tracker: Tracker, path: Path) -> list[dict[str, Any]]:
    """Return the outbox's events, as the collector gets them."""
    tracker.compliance.export_audit(path)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.unlink()
    return [line for line in lines if "event_id" in line]


def test_a_conversation_is_proved_with_and_without_its_user(
    config: MakeConfig, tmp_path: Path
) -> None:
    """A whole session, from the bytes that a tracker stored to the verdict."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with tracker.performance.conversation("agent_123", user_id="user_7") as conversation:
            conversation.user("Where is “order 7”? \U0001f6f5")
            conversation.tool("find_order", {"id": 7, "weights": [1e22, -0.0, 0.1]}, result=None)
            conversation.agent("On its way.", tokens_used=9)
        stored = exported(tracker, tmp_path / "audit.jsonl")
        device = Device(stored)
        chosen: dict[str, Any] = {
            "selection": seqs(1, len(stored)),
            "events": stored,
            "complete": True,
        }
        content = device.bundle(**chosen)
        assert check(content, tmp_path, device.trust).verdict == "PROVEN"
        content = device.bundle(**chosen, withhold=frozenset({USER}))
        assert check(content, tmp_path, device.trust).verdict == "PROVEN"
        assert b"user_7" not in b"".join(members(content).values())


def test_what_was_erased_stays_proved(config: MakeConfig, tmp_path: Path) -> None:
    """Together with the event that names it; a head from before the erasure still holds."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with tracker.performance.conversation("agent_123", user_id="user_7") as conversation:
            conversation.user("My PIN is 407193")
        before = Device(exported(tracker, tmp_path / "audit.jsonl"))
        tracker.compliance.erase_subject("user_7")
        stored = exported(tracker, tmp_path / "audit.jsonl")
    device = Device(stored)
    content = device.bundle(
        selection=seqs(1, len(stored)), events=stored, complete=True, older=[before.head()]
    )
    report = check(content, tmp_path, device.trust)
    assert report.verdict == "PROVEN"
    assert "3 events erased; nothing can be guessed from the rest" in str(report)
    everything = b"".join(members(content).values())
    assert b"407193" not in everything
    assert b"user_7" not in everything
