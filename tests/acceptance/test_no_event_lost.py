"""The three runs of DESIGN's table, and the user's own snippet: nothing acknowledged is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import agent
from tests.support.collector import CollectorClient, CollectorProcess, ForkedCollector
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = 1_000


@pytest.fixture
def stopped_collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    collector = ForkedCollector(tmp_path)
    yield collector
    collector.stop()


def settings(collector: CollectorProcess | CollectorClient, folder: Path) -> dict[str, str]:
    return {
        "SDK_API_KEY": collector.api_key,
        "SDK_CLIENT_ID": collector.client_id,
        "SDK_BASE_URL": collector.url,
        "SDK_OUTBOX_PATH": str(folder / "outbox" / "outbox.sqlite3"),
    }


def run_until(word: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"the agent ended with {process.wait()} before it said {word!r}")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def assert_all_arrived(collector: CollectorProcess, notes: list[dict[str, str]]) -> None:
    acknowledged = [note["id"] for note in notes]
    assert len(acknowledged) == EVENTS - 1  # all but the conversation's start
    events = [each for each in collector.events() if each["type"] != "integrity.checkpoint"]
    assert [event["event_id"] for event in events][-len(acknowledged) :] == acknowledged
    assert [event["seq"] for event in events] == list(range(1, EVENTS + 1))
    (outbox,) = collector.outboxes()
    assert (outbox["missing"], outbox["chain"]) == ([], "intact")


def test_quick_start(
    monkeypatch: pytest.MonkeyPatch, stopped_collector: CollectorProcess, tmp_path: Path
) -> None:
    """The snippet of the README stores four events: right types, order and fields."""
    for name, value in settings(stopped_collector, tmp_path).items():
        monkeypatch.setenv(name, value)
    stopped_collector.start()

    tracker = AgentPerformanceTracker()
    session_id = tracker.start_conversation("agent_123")
    tracker.log_user_message(session_id, "Hello!")
    tracker.log_agent_message(
        session_id=session_id, content="Hi there!", response_time_ms=150, tokens_used=10
    )
    tracker.end_conversation(session_id, quality_score=4.5)
    assert tracker.flush(timeout=5).pending == 0
    tracker.close(timeout=2)

    events = stopped_collector.events()
    assert [event["type"] for event in events] == [
        "conversation.started",
        "message.logged",
        "message.logged",
        "conversation.ended",
    ]
    assert {(event["session_id"], event["agent_id"]) for event in events} == {
        (session_id, "agent_123")
    }
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert events[1]["data"] == {"role": "user", "content": "Hello!"}
    assert events[2]["data"] == {
        "role": "agent",
        "content": "Hi there!",
        "response_time_ms": 150.0,
        "tokens_used": 10,
    }
    assert events[3]["data"].pop("duration_ms") >= 0
    assert events[3]["data"] == {"quality_score": 4.5}


def test_killed_while_the_server_is_away(
    stopped_collector: CollectorProcess, tmp_path: Path
) -> None:
    """Run A: 1,000 events offline, SIGKILL, restart with the server up: 1,000 arrive."""
    notes = tmp_path / "notes"
    environment = settings(stopped_collector, tmp_path)
    first = agent.start(environment, "burst", notes, EVENTS, "wait")
    run_until("logged", first)
    kill(first)

    stopped_collector.start()
    subprocess.run(
        [sys.executable, "-m", "tracker.cli.main", "flush", "--timeout", "60"],
        check=True,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert_all_arrived(stopped_collector, agent.read_notes(notes))


def outage(collector: CollectorProcess, folder: Path, seconds: float) -> None:
    notes = folder / "notes"
    process = agent.start(settings(collector, folder), "burst", notes, EVENTS, "flush")
    run_until("logged", process)
    assert not threading.Event().wait(seconds), "the outage itself"
    collector.start()
    assert run_until("pending", process).split() == ["pending", "0"]
    assert process.wait() == 0
    kill(process)
    assert_all_arrived(collector, agent.read_notes(notes))


def test_short_outage(stopped_collector: CollectorProcess, tmp_path: Path) -> None:
    """Run B in short: the server comes up a second late, and 1,000 arrive."""
    outage(stopped_collector, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_outage_of_90_seconds(stopped_collector: CollectorProcess, tmp_path: Path) -> None:
    """Run B: the server is away for 90 s, then up, same process: 1,000 arrive."""
    outage(stopped_collector, tmp_path, 90)


def test_killed_after_the_last_call(stopped_collector: CollectorProcess, tmp_path: Path) -> None:
    """Run C: server up, SIGKILL right after the last call: 1,000 arrive after a restart."""
    notes = tmp_path / "notes"
    environment = settings(stopped_collector, tmp_path)
    stopped_collector.start()
    first = agent.start(environment, "burst", notes, EVENTS, "wait")
    run_until("logged", first)
    kill(first)

    second = agent.start(environment, "burst", tmp_path / "other notes", 1, "flush")
    assert run_until("pending", second).split() == ["pending", "0"]
    kill(second)
    ids = [
        event["event_id"]
        for event in stopped_collector.events()
        if event["type"] != "integrity.checkpoint"
    ]
    acknowledged = [note["id"] for note in agent.read_notes(notes)]
    assert len(acknowledged) == EVENTS - 1
    assert ids[1:EVENTS] == acknowledged
    assert len(set(ids)) == len(ids)


def test_short_lived_job(stopped_collector: CollectorProcess, tmp_path: Path) -> None:
    """A job that logs and ends without flush or close has uploaded by the time it is gone."""
    stopped_collector.start()
    process = agent.start(
        settings(stopped_collector, tmp_path), "burst", tmp_path / "notes", EVENTS, "exit"
    )
    run_until("logged", process)
    assert process.wait() == 0
    kill(process)
    assert_all_arrived(stopped_collector, agent.read_notes(tmp_path / "notes"))


def test_exit_without_a_server_is_quick_and_loses_nothing(
    stopped_collector: CollectorProcess, tmp_path: Path
) -> None:
    """A process ends at once when the server is away; its events wait in the outbox."""
    environment = settings(stopped_collector, tmp_path)
    process = agent.start(environment, "burst", tmp_path / "notes", EVENTS, "exit")
    run_until("logged", process)
    assert process.wait(timeout=10) == 0
    kill(process)
    with sqlite3.connect(environment["SDK_OUTBOX_PATH"]) as outbox:
        query = "SELECT count(*) FROM pending WHERE type != 'integrity.checkpoint'"
        assert outbox.execute(query).fetchone() == (EVENTS,)
    outbox.close()
