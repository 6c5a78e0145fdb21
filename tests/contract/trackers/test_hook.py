"""`APIConfig.before_record`: changes an event, drops it, or fails without costing one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.settings import quick
from tracker import AsyncTracker, Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Hook = Callable[[dict[str, Any]], Any]


class Logged:
    """A tracker with a hook, and what it delivered."""

    def __init__(self, folder: Path, hook: Hook, **settings: Any) -> None:
        self.destination = RecordingDestination()
        config = quick(folder, before_record=hook, **settings)
        self.tracker = Tracker(config, destination=lambda: self.destination)

    @property
    def events(self) -> list[dict[str, Any]]:
        self.tracker.flush()
        return self.destination.events


def test_it_sees_the_event_after_masking(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def look(event: dict[str, Any]) -> dict[str, Any]:
        seen.append(event)
        return event

    with Logged(tmp_path, look).tracker as tracker, tracker.context(tenant="a"):
        tracker.track(
            "cart.abandoned", {"password": "hunter2", "items": 3}, user_id="u", timestamp=7
        )
    (event,) = seen
    assert event["data"].pop("password") != "hunter2"
    assert event["data"].pop("redactions")
    assert event == {
        "type": "cart.abandoned", "timestamp_ms": 7, "agent_id": None, "session_id": None,
        "user_id": "u", "data": {"items": 3}, "context": {"tenant": "a"}, "trace": None,
    }  # fmt: skip


def test_the_api_key_is_not_stored_even_if_the_hook_adds_it(tmp_path: Path) -> None:
    key = "trk_0123456789abcdefghij"

    def add(event: dict[str, Any]) -> dict[str, Any]:
        event["data"] |= {"environment": {"SDK_API_KEY": key, "key": [f"-H {key}"]}, key: 1}
        event["context"] = {"key": key}
        return event

    logged = Logged(tmp_path, add, api_key=key)
    with logged.tracker as tracker:
        tracker.track("cart.abandoned", {"items": 3})
        (event,) = logged.events
    assert event["data"]["items"] == 3
    assert key not in str(event)


def test_what_it_changes_is_stored(tmp_path: Path) -> None:
    metadata = {"list": [1]}

    def change(event: dict[str, Any]) -> dict[str, Any]:
        event["data"]["metadata"]["list"].append("hooked")
        event["context"] = {"tenant": "a"}
        return {**event, "user_id": None, "agent_id": "other"}

    logged = Logged(tmp_path, change)
    with logged.tracker as tracker:
        tracker.start_conversation("agent-1", user_id="u", metadata=metadata)
        (event,) = logged.events
        assert tracker.security.verify_integrity().ok
    assert metadata == {"list": [1]}
    assert event["data"] == {"metadata": {"list": [1, "hooked"]}}
    assert (event["user_id"], event["agent_id"], event["context"]) == (
        None,
        "other",
        {"tenant": "a"},
    )


def test_what_it_drops_is_counted_and_not_stored(tmp_path: Path) -> None:
    logged = Logged(tmp_path, lambda event: None if event["type"] == "a.noise" else event)
    with logged.tracker as tracker:
        for _ in range(3):
            assert tracker.track("a.noise")
        tracker.track("a.signal")
        assert [event["seq"] for event in logged.events] == [1]
        health = tracker.health()
        assert (health.accepted, health.delivered, health.discarded) == (4, 1, {"hook": 3})
        assert tracker.security.verify_integrity().ok


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (lambda _: 1 / 0, "before_record raised ZeroDivisionError"),
        (lambda _: "text", "before_record returned str, not a dict or None"),
        (lambda e: {**e, "type": "compliance.erased"}, "an event with another type"),
        (lambda e: {**e, "timestamp_ms": 0}, "an event with another timestamp_ms"),
        (lambda e: {**e, "trace": {"trace_id": "1"}}, "an event with another trace"),
        (lambda e: {**e, "data": {"secret-key": object()}}, "an event whose data is not allowed"),
        (lambda e: {**e, "data": None}, "an event whose data is not allowed"),
        (lambda e: {**e, "user_id": ""}, "an event whose user_id is not allowed"),
        (lambda e: {**e, "context": {"email": "x"}}, "an event whose context is not allowed"),
        (lambda e: {**e, "data": {"x": "y" * 2_000_000}}, "an event whose x is not allowed"),
    ],
)
def test_if_it_fails_the_data_is_withheld_and_the_event_says_so(
    tmp_path: Path, hook: Hook, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    logged = Logged(tmp_path, hook)
    with logged.tracker as tracker, caplog.at_level(logging.ERROR, "tracker"):
        for _ in range(2):
            event_id = tracker.track("cart.abandoned", {"secret-key": "private"}, user_id="u")
        event = logged.events[-1]
        assert tracker.security.verify_integrity().ok
    assert event["event_id"] == event_id
    assert event["data"].keys() == {"withheld"}
    assert why in event["data"]["withheld"]
    assert (event["type"], event["user_id"]) == ("cart.abandoned", "u")
    (line,) = caplog.messages
    assert "before_record" in line
    assert "private" not in line
    assert "secret-key" not in line


def test_reads_and_the_collector_take_withheld_events_of_every_kind(tmp_path: Path) -> None:
    logged = Logged(tmp_path, lambda _: 1 / 0)
    with logged.tracker as tracker:
        with tracker.conversation("agent-1") as c:
            c.user("hello")
            c.agent("hi")
            c.tool("search", result=1)
            c.feedback(score=1)
            tracker.llm.record_usage("p", "m", 1, 1)
            tracker.operations.update_agent_status("agent-1", "busy")
            tracker.operations.log_activity("agent-1", "x")
            tracker.security.report_event("x", "low")
            tracker.compliance.record_audit("x", "y")
            tracker.compliance.acknowledge("x", "y")
        assert tracker.get_conversation_history(c.session_id)
        assert tracker.list_conversations()
        tracker.get_metrics()
        tracker.llm.get_usage()
        tracker.operations.get_operations_overview()
        tracker.operations.get_recent_activity()
        tracker.operations.get_agent_status("agent-1")
        tracker.security.get_unclosed_sessions(0)
        assert {str(event["data"]) for event in logged.events} == {
            "{'withheld': 'before_record raised ZeroDivisionError'}"
        }


def test_what_it_logs_itself_does_not_go_through_it_again(tmp_path: Path) -> None:
    trackers: list[Tracker] = []

    def log(event: dict[str, Any]) -> dict[str, Any]:
        trackers[0].track("hook.ran", {"for": event["type"]})
        return event

    logged = Logged(tmp_path, log)
    trackers.append(logged.tracker)
    with logged.tracker as tracker:
        tracker.track("a.b")
        assert [event["type"] for event in logged.events] == ["hook.ran", "a.b"]


def test_an_interrupt_in_it_reaches_the_program(tmp_path: Path) -> None:
    def interrupted(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    logged = Logged(tmp_path, interrupted)
    with logged.tracker as tracker:
        with contextlib.suppress(KeyboardInterrupt):
            tracker.track("a.b")
            pytest.fail("it did not")
        assert logged.events == []


def test_async_trackers_have_it_too(tmp_path: Path) -> None:
    destination = RecordingDestination()
    config = quick(tmp_path, before_record=lambda e: None if e["type"] == "a.noise" else e)

    async def main() -> dict[str, int]:
        async with AsyncTracker(config, destination=lambda: destination) as tracker:
            await asyncio.gather(*(tracker.track(name) for name in ("a.noise", "a.b", "a.noise")))
            await tracker.flush()
            return dict((await tracker.health()).discarded)

    assert asyncio.run(main()) == {"hook": 2}
    assert [event["type"] for event in destination.events] == ["a.b"]
