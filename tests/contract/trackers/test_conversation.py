"""Conversations as blocks: what they log, when, and what they do when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker, TrackerClosedError, ValidationError
from tracker.context import bind
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.conftest import MakeConfig
    from tests.support.recorded import Recorded


def fail(error: Exception, after: Callable[[], object]) -> None:
    after()
    raise error


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def tracker(recorded: Recorded) -> AgentPerformanceTracker:
    return recorded.tracker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_whole_conversation(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """Start, messages, tool, feedback and end, each with session, agent and user."""
    with tracker.conversation("a", user_id="u", run_id="r", metadata={"m": 1}) as c:
        c.system("be kind")
        c.user("hello", tokens_used=2, metadata={"n": 1})
        c.tool("search", {"q": "x"}, result=[1], duration_ms=3, call_id="call-1")
        c.agent("hi", response_time_ms=5, tokens_used=3, model="m")
        c.feedback(score=4, source="user")
        c.end(quality_score=4.5, outcome="resolved")
    events = recorded.events
    assert {(e["session_id"], e["agent_id"], e["user_id"]) for e in events} == {
        (c.session_id, "a", "u")
    }
    assert events[-1]["data"].pop("duration_ms") >= 0
    assert [(e["type"], e["data"]) for e in events] == [
        ("conversation.started", {"run_id": "r", "metadata": {"m": 1}}),
        ("message.logged", {"role": "system", "content": "be kind"}),
        (
            "message.logged",
            {"role": "user", "content": "hello", "tokens_used": 2, "metadata": {"n": 1}},
        ),
        (
            "tool.called",
            {
                "name": "search",
                "arguments": {"q": "x"},
                "result": [1],
                "duration_ms": 3,
                "call_id": "call-1",
            },
        ),
        (
            "message.logged",
            {
                "role": "agent",
                "content": "hi",
                "response_time_ms": 5,
                "tokens_used": 3,
                "model": "m",
            },
        ),
        ("feedback.recorded", {"score": 4, "source": "user"}),
        ("conversation.ended", {"quality_score": 4.5, "outcome": "resolved"}),
    ]


def test_answers_are_timed(
    recorded: Recorded, tracker: AgentPerformanceTracker, clock: Clock
) -> None:
    """From the user's last message, or from the start before there is one."""
    with tracker.conversation("a") as c:
        clock.now += 0.25
        c.agent("how can I help?")
        c.user("first")
        clock.now += 1
        c.user("second")
        clock.now += 1.23456
        c.agent("answer")
    times = [
        e["data"]["response_time_ms"] for e in recorded.events if "agent" in e["data"].values()
    ]
    assert times == [250, 1234.56]


def test_answers_are_timed_from_messages_of_either_form(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """A user's message that the tracker logged to the current conversation counts as well."""
    with tracker.conversation("a") as c:
        c._asked -= 3600
        tracker.log_user_message(content="hello")
        c.agent("hi")
        c._asked -= 3600
        tracker.log_user_message("another session", "hello")
        c.agent("hi")
    soon, late = (e["data"]["response_time_ms"] for e in recorded.events if len(e["data"]) == 3)
    assert soon < 3_600_000 <= late


def test_calls_inside_need_no_session_id(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Every method of the tracker finds the conversation; one given by hand wins."""
    with tracker.conversation("a") as c:
        tracker.log_message(role="system", content="1")
        tracker.log_user_message(content="2")
        tracker.log_agent_message(content="3", response_time_ms=150, tokens_used=10)
        tracker.log_system_message(content="4")
        tracker.log_tool_call(name="t", arguments=None)
        tracker.record_feedback(score=1)
        tracker.log_user_message("other", "5")
        tracker.log_user_message(session_id="other", content="6")
        tracker.end_conversation(quality_score=5)
    sessions = [event["session_id"] for event in recorded.events]
    assert sessions == [c.session_id] * 7 + ["other"] * 2 + [c.session_id]
    assert recorded.types.count("conversation.ended") == 1


def test_calls_outside_need_one(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """Without a conversation the error says what to do; a forgotten content is named too."""
    calls: tuple[Callable[[], str], ...] = (
        lambda: tracker.log_user_message(content="x"),
        lambda: tracker.log_tool_call(name="t", arguments={}),
        lambda: tracker.end_conversation(),
        lambda: tracker.record_failed_session(exception=OSError()),
        lambda: tracker.record_feedback(score=1),
    )
    for call in calls:
        with pytest.raises(ValidationError, match="session_id: is None, and no conversation is"):
            call()
    with pytest.raises(ValidationError, match="content: is None; pass the text as content="):
        tracker.log_user_message("s")
    assert recorded.events == []


def test_an_escaping_exception_marks_it_failed(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Type and message are stored, the exception goes on, and no end is logged."""
    boom = TimeoutError("model \ud800")
    with pytest.raises(TimeoutError) as caught, tracker.conversation("a") as c:
        fail(boom, lambda: c.end(quality_score=5, metadata={"k": 1}))
    assert caught.value is boom
    assert recorded.types == ["conversation.started", "conversation.failed"]
    stored = recorded.events[-1]["data"]
    assert stored.pop("traceback").endswith("\nTimeoutError: model \\ud800")
    assert stored == {
        "error_type": "TimeoutError",
        "error_message": "model \\ud800",
        "metadata": {"k": 1},
    }


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError, SystemExit])
def test_interruptions_are_failures_too(
    recorded: Recorded, tracker: AgentPerformanceTracker, kind: type[BaseException]
) -> None:
    """Whatever escapes."""
    with pytest.raises(kind), tracker.conversation("a"):
        raise kind
    assert recorded.events[-1]["data"]["error_type"] == kind.__name__


def test_an_exception_whose_text_cannot_be_had(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Its failure is logged all the same, and a text of megabytes is cut off."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    with pytest.raises(MuteError), tracker.conversation("a"):
        raise MuteError
    with pytest.raises(OSError, match="xxx"), tracker.conversation("a"):
        raise OSError("x" * 3_000_000)
    mute, long = (e["data"] for e in recorded.events if e["type"] == "conversation.failed")
    assert mute["error_message"] == "[no text: ValueError in its __str__]"
    assert long["error_message"] == "x" * 10_000 + "… (3,000,000 characters)"


def test_a_generator_closed_early_is_no_failure(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Its consumer has had enough."""

    def stream() -> Generator[int, None, None]:
        with tracker.conversation("a"):
            yield 1
            yield 2

    for _ in stream():
        break
    gc.collect()
    assert recorded.types == ["conversation.started", "conversation.ended"]


def test_what_was_ended_by_hand_is_left_alone(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """No second end, and no end after a failure that the agent dealt with."""
    with tracker.conversation("a") as c:
        tracker.end_conversation(c.session_id, 5)
    with tracker.conversation("a") as c:
        tracker.record_failed_session(c.session_id, "gave up")
    assert recorded.types == [
        "conversation.started",
        "conversation.ended",
        "conversation.started",
        "conversation.failed",
    ]


def test_wrong_arguments_raise_at_once(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Also those that are only stored on leaving; nothing is logged for them."""
    wrongs: list[dict[str, Any]] = [{"user_id": 7}, {"session_id": ""}, {"metadata": [1]}]
    for wrong in wrongs:
        with pytest.raises(ValidationError), tracker.conversation("a", **wrong):
            pytest.fail("it was entered")
    with tracker.conversation("a") as c:
        with pytest.raises(ValidationError, match="quality_score: is 6"):
            c.end(quality_score=6)
        with pytest.raises(ValidationError, match="set is not JSON"):
            c.tool("t", {1})
        with pytest.raises(ValidationError, match="name: is empty"):
            c.tool("")
        c.end(2, outcome="first")
        c.end(3)
    with pytest.raises(ValidationError, match="is over; call end"):
        c.end(4)
    with pytest.raises(ValidationError, match="was entered before"):
        c.__enter__()
    assert recorded.types == ["conversation.started", "conversation.ended"]
    ended = recorded.events[-1]["data"]
    assert (ended["quality_score"], ended["outcome"]) == (3, "first")


def test_a_tool_is_timed(
    recorded: Recorded, tracker: AgentPerformanceTracker, clock: Clock
) -> None:
    """As a block: logged when it is left, with result, time, and the arguments it began with."""
    arguments = {"q": ["x"]}
    with tracker.conversation("a") as c:
        with c.tool("search", arguments, call_id="1") as call:
            arguments["q"].append("changed by the tool")
            clock.now += 0.5
            call.result = {"hits": 2}
            assert recorded.types == ["conversation.started"]
        with pytest.raises(ValidationError, match="was logged or entered before"), call:
            pass
    tool = recorded.events[1]
    assert tool["event_id"] == call.event_id
    assert tool["data"] == {
        "name": "search",
        "arguments": {"q": ["x"]},
        "result": {"hits": 2},
        "duration_ms": 500,
        "call_id": "1",
    }


def test_a_tool_that_raises(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """Its error is logged with it, and goes on; the conversation fails only if nobody minds it."""
    with tracker.conversation("a") as c:
        with suppress(LookupError), c.tool("search") as call:
            raise LookupError("no such thing")
        c.agent("sorry")
    assert call.error == "LookupError: no such thing"
    tool = recorded.events[1]["data"]
    assert (tool["error"], tool["arguments"]) == ("LookupError: no such thing", None)
    assert recorded.types[-1] == "conversation.ended"


def test_a_tool_logged_at_once(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """With a result, even None, an error or a duration it is logged when tool() returns."""
    with tracker.conversation("a") as c:
        each: list[dict[str, Any]] = [{"result": None}, {"error": "no"}, {"duration_ms": 1.0}]
        for given in each:
            call = c.tool("t", {}, **given)
            assert recorded.events[-1]["event_id"] == call.event_id


def test_a_tool_neither_entered_nor_given_a_result_is_not_lost(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """As a bare statement it is logged too, once, before the end of the conversation."""
    with tracker.conversation("a") as c:
        c.tool("ping", {"host": "x"})
    assert recorded.types == ["conversation.started", "tool.called", "conversation.ended"]
    assert recorded.events[1]["data"] == {"name": "ping", "arguments": {"host": "x"}}


def test_async_blocks_do_what_plain_ones_do(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """`async with` is the same, over tasks, for conversations and tools."""

    async def tool(number: int) -> None:
        await asyncio.sleep(0)
        tracker.log_tool_call(name=f"t{number}", arguments={})

    async def main() -> str:
        async with tracker.conversation("a") as c, c.tool("all") as call:
            await asyncio.gather(tool(1), tool(2))
            call.result = "done"
        return c.session_id

    session_id = asyncio.run(main())
    assert {event["session_id"] for event in recorded.events} == {session_id}
    assert [event["data"].get("name") for event in recorded.events[1:-1]] == ["t1", "t2", "all"]
    with pytest.raises(KeyError), tracker.conversation("a"):
        raise KeyError
    assert recorded.types[-1] == "conversation.failed"


def test_a_conversation_of_many_threads(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """The block's own methods and bound functions, from eight threads at once."""
    with tracker.conversation("a", session_id="s") as c:

        def talk() -> None:
            for number in range(20):
                c.user(str(number))
                tracker.log_agent_message(content=str(number))

        threads = [threading.Thread(target=bind(talk)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(recorded.events) == 2 + 8 * 20 * 2
    assert {event["session_id"] for event in recorded.events} == {"s"}


def test_trouble_on_leaving(config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """It raises as any call does, but never in place of an exception; that is logged once."""
    tracker = AgentPerformanceTracker(config(), destination=RecordingDestination)
    keep = AgentPerformanceTracker(config())
    with pytest.raises(TrackerClosedError), tracker.conversation("a"):
        tracker.close()
    with caplog.at_level(logging.ERROR, logger="tracker"):
        for _ in range(3):
            other = AgentPerformanceTracker(config())
            block = other.conversation("a")
            with pytest.raises(ZeroDivisionError), block as c, c.tool("t") as tool:
                fail(ZeroDivisionError(), other.close)
            assert tool.event_id is None
    keep.close()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    said = [record.getMessage() for record in errors]
    assert len(said) == 3, "once for each of the three trackers, though each failed twice"
    assert said[0].startswith("the call of 't' was not recorded: this AgentPerformanceTracker")


def test_blocks_of_a_disabled_tracker_check_their_arguments(config: MakeConfig) -> None:
    """Blocks work and check their arguments when the tracker is disabled."""
    with AgentPerformanceTracker(config(disabled=True)) as tracker, tracker.conversation("a") as c:
        c.user("x")
        with c.tool("t"):
            pass
        with pytest.raises(ValidationError):
            c.user(5)  # type: ignore[arg-type]  # that is the test
