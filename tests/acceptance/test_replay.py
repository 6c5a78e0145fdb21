"""The main job: real conversations, a server that comes and goes, a writer that is killed."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.test_no_event_lost import kill, run_until, settings
from tests.support import agent
from tests.support.collector import CollectorProcess, ForkedCollector
from tests.support.conversations import all_calls, needs_data, read_conversations

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = needs_data


class Weather(threading.Thread):
    """Stops, kills and starts the collector at random until it is told to clear up."""

    def __init__(self, collector: CollectorProcess, chance: random.Random) -> None:
        super().__init__(name="weather")
        self._collector = collector
        self._chance = chance
        self._clear = threading.Event()
        self.outages = 0

    def run(self) -> None:
        while not self._clear.is_set():
            self._collector.start()
            self._clear.wait(self._chance.uniform(0.1, 1.5))
            self.outages += 1
            if self._chance.random() < 0.5:
                self._collector.kill()
            else:
                self._collector.stop()
            self._clear.wait(self._chance.uniform(0.1, 1.0))
        self._collector.start()

    def clear_up(self) -> None:
        self._clear.set()
        self.join()


def kill_after(process: subprocess.Popen[str], notes: Path, more: int) -> None:
    """Kill an agent once it has noted so many further calls, or when it ends by itself."""
    target = len(agent.read_notes(notes)) + more
    while process.poll() is None and len(agent.read_notes(notes)) < target:
        threading.Event().wait(0.01)
    kill(process)


def replay_in_bad_weather(folder: Path, conversations: int, kills: int, seed: int) -> None:
    """Replay with kills and outages, then check what arrived."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    collector = ForkedCollector(folder)
    weather = Weather(collector, chance)
    weather.start()
    notes, environment = folder / "notes", settings(collector, folder)
    calls = all_calls(conversations)
    killed = 0
    try:
        while True:
            process = agent.start(environment, "replay", notes, conversations)
            if killed < kills:
                kill_after(process, notes, chance.randint(1, 2 * len(calls) // kills))
                killed += 1
                continue
            run_until("finished", process)
            assert process.wait() == 0
            kill(process)
            break
        weather.clear_up()
        flusher = agent.start(environment, "burst", folder / "last notes", 1, "flush")
        assert run_until("pending", flusher).split() == ["pending", "0"]
        kill(flusher)
        check(collector, agent.read_notes(notes), conversations, killed)
    finally:
        weather.clear_up()
        collector.stop()


def check(
    collector: CollectorProcess, notes: list[dict[str, Any]], conversations: int, killed: int
) -> None:
    calls = all_calls(conversations)
    assert [note["index"] for note in notes] == list(range(len(calls)))
    events = collector.events()
    by_id = {event["event_id"]: event for event in events}
    assert len(by_id) == len(events), "each event is there once"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    # A kill between a commit and its note makes the agent log that call once more.
    assert len(calls) <= len(events) - 1 <= len(calls) + killed
    last_seq = 0
    for note, call in zip(notes, calls, strict=True):
        if call.method == "start_conversation":
            assert note["returned"] == call.arguments["session_id"]
            continue
        event = by_id[note["returned"]]
        assert event["type"] == call.type
        assert event["session_id"] == call.arguments["session_id"]
        assert event["agent_id"] == "airline-agent"
        event["data"].pop("duration_ms", None)
        assert event["data"] == call.expected_data
        assert event["seq"] > last_seq
        last_seq = event["seq"]
    (outbox,) = collector.outboxes()
    assert (outbox["missing"], outbox["chain"]) == ([], "intact")
    assert outbox["highest_seq"] == outbox["events"] == len(events)


def test_the_data_is_what_it_says() -> None:
    """The file holds 200 conversations with 5,308 messages and 1,164 tool calls."""
    messages = [m for conversation in read_conversations() for m in conversation["messages"]]
    assert len(read_conversations()) == 200
    assert len(messages) == 5_308
    calls = all_calls()
    assert sum(call.method == "log_tool_call" for call in calls) == 1_164
    silent = sum(m["content"] is None for m in messages)
    answers = sum(m["role"] == "tool" for m in messages)
    assert sum(call.method == "log_message" for call in calls) == 5_308 - silent - answers
    assert all("result" in c.expected_data for c in calls if c.method == "log_tool_call")


def test_20_conversations_survive_kills_and_outages(tmp_path: Path) -> None:
    """Twenty conversations through kills and outages arrive whole, once and in order."""
    replay_in_bad_weather(tmp_path, conversations=20, kills=3, seed=20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_200_conversations_survive_kills_and_outages(tmp_path: Path) -> None:
    """All 200 conversations through kills and outages arrive whole, once and in order."""
    replay_in_bad_weather(tmp_path, conversations=200, kills=25, seed=200)
