"""Rows that were changed on disk: never sent as if whole, and in nobody's way."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call_json, fill
from tracker import AgentPerformanceTracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig


@pytest.mark.parametrize(("stored", "changed"), [(3, [2]), (3, [3]), (2, [1, 2])])
def test_they_become_dead_letters_and_the_rest_goes_on(
    config: MakeConfig, stored: int, changed: list[int]
) -> None:
    """Also where nothing else is pending; what is logged after them is delivered."""
    fill(config(), stored)
    with sqlite3.connect(config().outbox_path) as connection:
        connection.executemany(
            "UPDATE events SET data = '{}' WHERE seq = ?", [(n,) for n in changed]
        )
    connection.close()
    destination = RecordingDestination()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        began = time.monotonic()
        assert tracker.flush().pending == 0
        tracker.start_conversation("agent-1")
        assert tracker.flush().pending == 0
        assert time.monotonic() - began < 20, "a flush waited for what was settled"
    whole = [seq for seq in range(1, stored + 2) if seq not in changed]
    assert [event["seq"] for event in destination.events] == whole
    found = call_json("--outbox", config().outbox_path, "status")
    assert (found["delivered"], found["dead"]) == (len(whole), len(changed))
