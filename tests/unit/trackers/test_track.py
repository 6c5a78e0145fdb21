"""Free events, and the tracker that is all trackers."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import opened
from tracker import (
    AgentOperationsTracker,
    FlushResult,
    LLMTracker,
    Tracker,
    TrackerClosedError,
    ValidationError,
    events,
)
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


def test_a_free_event_is_delivered_as_it_is(config: MakeConfig) -> None:
    """Its fields arrive unchanged, those that are None included; without data it has none."""
    destination = RecordingDestination()
    with Tracker(config(), destination=lambda: destination) as tracker:
        tracker.track("cart.abandoned", {"items": 3, "coupon": None}, user_id="u", agent_id="a")
        tracker.track("a.b-c.d_1")
        tracker.track("panier.abandonné", {})
    assert [(event["type"], event["data"]) for event in destination.events] == [
        ("cart.abandoned", {"items": 3, "coupon": None}), ("a.b-c.d_1", {}),
        ("panier.abandonné", {}),
    ]  # fmt: skip
    assert (destination.events[0]["agent_id"], destination.events[0]["user_id"]) == ("a", "u")


def test_a_free_event_knows_its_conversation(config: MakeConfig) -> None:
    """Agent and user come from the conversation, unless they are given."""
    destination = RecordingDestination()
    with Tracker(config(), destination=lambda: destination) as tracker:
        session = tracker.performance.start_conversation("agent-1", user_id="user-1")
        tracker.track("cart.abandoned", session_id=session)
        tracker.track("cart.abandoned", session_id=session, agent_id="agent-2", user_id="user-2")
        tracker.track("cart.abandoned", session_id="never-started")
    assert [
        (event["session_id"], event["agent_id"], event["user_id"])
        for event in destination.events[1:]
    ] == [
        (session, "agent-1", "user-1"),
        (session, "agent-2", "user-2"),
        ("never-started", None, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("cart",), {}, "^type: is 'cart'; give a dotted name, as in 'cart.abandoned'"),
        (("cart.",), {}, "^type: is 'cart.'"),
        ((".cart",), {}, "^type: is '.cart'"),
        (("cart..x",), {}, "^type: is 'cart..x'"),
        (("cart.x y",), {}, "^type: is 'cart.x y'"),
        (("cart.x\n",), {}, r"^type: is 'cart.x\\n'"),
        (("",), {}, "^type: is empty"),
        (("a." + "b" * 255,), {}, "^type: has 257 characters"),
        ((None,), {}, "^type: is None"),
        (("cart.x", [1]), {}, "^data: is of type list"),
        (("cart.x", {"a": {1}}), {}, r"^data\['a'\]: set is not JSON-serialisable"),
        (("cart.x",), {"session_id": ""}, "^session_id: is empty"),
        (("cart.x",), {"agent_id": 1}, "^agent_id: is of type int"),
        (("cart.x",), {"user_id": 1}, "^user_id: is of type int"),
    ],
)
def test_wrong_arguments_are_refused(
    config: MakeConfig, arguments: tuple[Any, ...], more: dict[str, Any], message: str
) -> None:
    """A name that is not dotted and data that JSON cannot hold are refused; nothing is stored."""
    destination = RecordingDestination()
    with Tracker(config(), destination=lambda: destination) as tracker:
        with pytest.raises(ValidationError, match=message):
            tracker.track(*arguments, **more)
        tracker.flush()
    assert destination.events == []


@pytest.mark.parametrize("name", sorted(events.VOCABULARY))
def test_the_vocabularys_names_are_not_free(config: MakeConfig, name: str) -> None:
    """An event of the tracker's own is logged by its method, which checks its fields."""
    with (
        Tracker(config(disabled=True)) as tracker,
        pytest.raises(ValidationError, match=f"^type: '{name}' is a type of tracker itself"),
    ):
        tracker.track(name, {})


def test_the_vocabulary_is_every_name_in_the_module() -> None:
    """No constant of `tracker.events` was forgotten in the set, and all are dotted."""
    named = {
        value
        for name, value in vars(events).items()
        if name.isupper() and isinstance(value, str) and name != "VOCABULARY"
    }
    assert named == events.VOCABULARY
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in named)
    assert len(named) == 24


def test_every_tracker_tracks(config: MakeConfig) -> None:
    """Free events can be logged by any of the trackers."""
    destination = RecordingDestination()
    with Tracker(config(), destination=lambda: destination) as tracker:
        for part in (tracker, tracker.performance, tracker.operations, tracker.llm):
            part.track("cart.abandoned")
    assert len(destination.events) == 4


def test_the_parts_share_one_client(config: MakeConfig) -> None:
    """All parts, and trackers that stand alone, are on one outbox, with one sync thread."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        parts = (tracker.performance, tracker.operations, tracker.llm)
        assert [type(part) for part in parts] == [
            Tracker, AgentOperationsTracker, LLMTracker,
        ]  # fmt: skip
        with LLMTracker(config()) as alone:
            alone.track("cart.abandoned")
            assert opened.paths() == {config().outbox_path}
            assert tracker.health().accepted == 1
            assert [thread.name for thread in threading.enumerate()].count("tracker-sync") == 1


def test_closing_it_closes_every_part(config: MakeConfig) -> None:
    """After close each part refuses calls; what was pending was uploaded, and is reported."""
    destination = RecordingDestination()
    tracker = Tracker(config(flush_interval=60), destination=lambda: destination)
    tracker.llm.record_usage("p", "m", 1, 1)
    result = tracker.close()
    assert result.pending == 0
    assert len(destination.events) == 1
    assert destination.closed
    for call in (
        lambda: tracker.track("a.b"),
        lambda: tracker.llm.record_usage("p", "m", 1, 1),
        lambda: tracker.operations.heartbeat("a"),
        lambda: tracker.performance.start_conversation("a"),
        tracker.flush,
    ):
        with pytest.raises(TrackerClosedError):
            call()
    assert tracker.close() == FlushResult()


def test_closing_it_leaves_others_open(config: MakeConfig) -> None:
    """A tracker that stands alone keeps the outbox; a closed part does not close the whole."""
    with LLMTracker(config(), destination=RecordingDestination) as alone:
        with Tracker(config()) as tracker:
            tracker.operations.close()
            tracker.llm.record_usage("p", "m", 1, 1)
        alone.record_usage("p", "m", 1, 1)
        assert [one.calls for one in alone.get_usage()] == [2]


def test_a_part_outlives_a_whole_that_was_dropped(config: MakeConfig) -> None:
    """Keeping only a part keeps the outbox open, though others close theirs."""
    part = Tracker(config(), destination=RecordingDestination).llm
    LLMTracker(config()).close()
    part.record_usage("p", "m", 1, 1)
    assert len(part.get_usage()) == 1
    part.close()


def test_disabled_works_in_all_parts(config: MakeConfig, tmp_path: Path) -> None:
    """With `disabled` each part checks arguments and makes no file."""
    with Tracker(config(disabled=True)) as tracker:
        tracker.llm.record_usage("p", "m", 1, 1)
        tracker.operations.update_agent_status("a", "idle")
        tracker.track("a.b")
        assert tracker.flush() == FlushResult()
    assert not list(tmp_path.rglob("*.sqlite3"))
