"""A dashboard over an outbox of a small help desk; nothing in it is pending or changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.dashboard import RunningDashboard, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.config import APIConfig


def talk(tracker: Tracker, session_id: str = "order-7", user_id: str = "user_7") -> None:
    """Log a conversation with a tool, a model call and a score."""
    with tracker.conversation("agent_123", user_id=user_id, session_id=session_id) as c:
        c.user("Where is order 7?")
        with c.tool("find_order", {"id": 7}) as call:
            call.result = {"status": "sent"}
        c.agent("On its way.", response_time_ms=420, tokens_used=9, model="gpt-4o")
        c.end(quality_score=4.5, outcome="resolved")
    tracker.llm.record_usage("openai", "gpt-4o", 900, 120, session_id=session_id)
    tracker.record_score("helpful", 4, session_id=session_id, source="reviewer")
    tracker.operations.update_agent_status("agent_123", "busy")


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> APIConfig:
    """The settings of an outbox in which everything is delivered."""
    config = quick(tmp_path_factory.mktemp("talked"), environment="production", release="1.4")
    with Tracker(config, destination=RecordingDestination) as tracker:
        talk(tracker)
        assert tracker.flush(10).pending == 0
    return config


@pytest.fixture(scope="module")
def board(talked: APIConfig) -> Iterator[RunningDashboard]:
    """A dashboard of that outbox, with a browser that is signed in."""
    with running(path_of(talked)) as dashboard:
        yield dashboard


@pytest.fixture
def stranger(board: RunningDashboard) -> RunningDashboard:
    """A browser that has not opened the link."""
    return RunningDashboard(board.port, board.token, board.dashboard)


def path_of(config: APIConfig) -> Path:
    """Return the outbox of a configuration."""
    return config.outbox_path
