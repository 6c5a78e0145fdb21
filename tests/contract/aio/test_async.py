"""The async trackers: the same as the others, awaited, and never in the event loop's way."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import opened
from tracker import (
    AgentPerformanceTracker,
    AsyncAgentPerformanceTracker,
    AsyncConversation,
    AsyncTracker,
    ConfigurationError,
    FlushResult,
    OutboxError,
    Tracker,
    TrackerClosedError,
    ValidationError,
    current_conversation,
)
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.testing import RecordingDestination
from tracker.trackers.conversation import ActiveConversation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig
    from tracker.outbox.outbox import Outbox
    from tracker.outbox.store.transaction import Transaction

THREADS = ("tracker-log", "tracker-commit", "tracker-read", "tracker-wait")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in THREADS]


def await_(condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came true")


def stored(path: Path) -> list[str]:
    """Return the content of each message in the outbox, in order, as any SQLite tool sees it."""
    connection = sqlite3.connect(path)
    try:
        query = "SELECT json_extract(data, '$.content') FROM events WHERE type = 'message.logged'"
        return [content for (content,) in connection.execute(f"{query} ORDER BY seq")]
    finally:
        connection.close()


def outbox_of(config: APIConfig) -> Outbox:
    """Return the outbox of trackers that are open."""
    return opened.client_of(config.outbox_path).outbox


class Held:
    """Holds the outbox's writer as a slow flush would: a commit ends only after the block."""

    def __init__(self, outbox: Outbox) -> None:
        self._entered, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=outbox.run, args=(self._wait,))

    def _wait(self, _: Transaction) -> None:
        self._entered.set()
        assert self._go_on.wait(60)

    def __enter__(self) -> Held:
        self._thread.start()
        assert self._entered.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._thread.join()


@pytest.fixture
def locked(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], sqlite3.Connection]]:
    """Lock the outbox from outside, so that commits fail until it is rolled back."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    made = []

    def lock() -> sqlite3.Connection:
        other = sqlite3.connect(config().outbox_path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        made.append(other)
        return other

    yield lock
    for other in made:
        other.close()


def public(cls: type) -> set[str]:
    return {
        name
        for owner in cls.__mro__
        for name, member in vars(owner).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


def test_no_call_is_missing(config: MakeConfig) -> None:
    """Every tracker, every method of each, and those of a conversation have an async namesake."""
    sync = Tracker(config(disabled=True))
    parts = {name: part for name, part in vars(sync).items() if not name.startswith("_")}
    tracker = AsyncTracker(config(disabled=True))
    assert set(parts) == {name for name in vars(tracker) if not name.startswith("_")}
    pairs: list[tuple[object, object]] = [(sync, tracker)]
    pairs += [(part, getattr(tracker, name)) for name, part in parts.items()]
    for one, other in pairs:
        assert public(type(one)) == public(type(other))
        plain = {"config", "context", "conversation", "extract", "inject", "observe", "performance",
                 "span"}  # fmt: skip
        for name in public(type(one)) - plain:
            assert inspect.iscoroutinefunction(getattr(type(other), name)), name
            assert inspect.signature(getattr(one, name)) == inspect.signature(getattr(other, name))
    says = {"user", "agent", "system", "messages", "tool", "feedback", "score", "end"}
    assert public(ActiveConversation) == public(AsyncConversation) == says
    sync.close()


def log_all(tracker: Tracker) -> list[Any]:
    """Make calls of every tracker, and return what the reads say."""
    performance = tracker.performance
    with performance.conversation("agent-1", user_id="user-1", metadata={"a": 1}) as c:
        c.system("be brief")
        c.user("hello", tokens_used=2)
        performance.log_user_message(content="are you there?")
        c.tool("search", {"q": "x"}, result=[1], duration_ms=3)
        with performance.span("look", input="x") as span:
            span.output = 1
        c.agent("yes", response_time_ms=5)
        c.feedback(score=4)
        c.end(4.5, outcome="resolved")
    tracker.operations.register_agent("agent-1", name="Desk")
    tracker.operations.update_agent_status("agent-1", "active")
    tracker.operations.update_agent_status("agent-1", "busy")
    tracker.llm.record_usage("p", "m", 10, 5, session_id=c.session_id, cost_usd=0.5)
    tracker.security.report_event("access_denied", "low", session_id=c.session_id)
    tracker.track("cart.abandoned", {"items": 3}, session_id=c.session_id)
    state = tracker.operations.get_agent_status("agent-1")
    assert state is not None
    return [
        [entry.content for entry in performance.get_conversation_history(c.session_id)],
        [item.status for item in performance.list_conversations()],
        performance.get_metrics().messages,
        (state.status, state.previous_status),
        [use.cost_usd for use in tracker.llm.get_usage()],
        tracker.security.get_unclosed_sessions(0),
        tracker.security.verify_integrity().ok,
    ]


async def log_all_awaited(tracker: AsyncTracker) -> list[Any]:
    """Do what `log_all` does."""
    performance = tracker.performance
    async with performance.conversation("agent-1", user_id="user-1", metadata={"a": 1}) as c:
        await c.system("be brief")
        await c.user("hello", tokens_used=2)
        await performance.log_user_message(content="are you there?")
        await c.tool("search", {"q": "x"}, result=[1], duration_ms=3)
        async with performance.span("look", input="x") as span:
            span.output = 1
        await c.agent("yes", response_time_ms=5)
        await c.feedback(score=4)
        c.end(4.5, outcome="resolved")
    await tracker.operations.register_agent("agent-1", name="Desk")
    await tracker.operations.update_agent_status("agent-1", "active")
    await tracker.operations.update_agent_status("agent-1", "busy")
    await tracker.llm.record_usage("p", "m", 10, 5, session_id=c.session_id, cost_usd=0.5)
    await tracker.security.report_event("access_denied", "low", session_id=c.session_id)
    await tracker.track("cart.abandoned", {"items": 3}, session_id=c.session_id)
    state = await tracker.operations.get_agent_status("agent-1")
    assert state is not None
    return [
        [entry.content for entry in await performance.get_conversation_history(c.session_id)],
        [item.status for item in await performance.list_conversations()],
        (await performance.get_metrics()).messages,
        (state.status, state.previous_status),
        [use.cost_usd for use in await tracker.llm.get_usage()],
        await tracker.security.get_unclosed_sessions(0),
        (await tracker.security.verify_integrity()).ok,
    ]


def test_the_same_events_and_the_same_reads(config: MakeConfig, tmp_path: Path) -> None:
    """Awaited calls store, deliver and read back what the same calls without await do."""
    kept: list[list[dict[str, Any]]] = []
    reads: list[list[Any]] = []

    async def awaited(settings: APIConfig, destination: RecordingDestination) -> None:
        async with AsyncTracker(settings, destination=lambda: destination) as tracker:
            reads.append(await log_all_awaited(tracker))
            assert (await tracker.flush()).pending == 0

    for name in ("sync", "async"):
        destination = RecordingDestination()
        settings = config(outbox_path=tmp_path / name)
        if name == "async":
            asyncio.run(awaited(settings, destination))
        else:
            with Tracker(settings, destination=lambda: destination) as tracker:  # noqa: B023 - used at once
                reads.append(log_all(tracker))
        kept.append(destination.events)
    for events in kept:
        (session_id,) = {event.get("session_id") for event in events} - {None}
        numbers: dict[str, int] = {}
        for event in events:
            for name, value in event.get("trace", {}).items():
                event["trace"][name] = numbers.setdefault(value, len(numbers))
            for varying in ("event_id", "timestamp_ms", "digest", "chain", "salt"):
                del event[varying]
            event["data"].pop("duration_ms", None)
            assert event.pop("session_id", None) in (session_id, None)
    assert kept[0] == kept[1]
    assert reads[0] == reads[1]


def test_the_loop_goes_on_while_a_commit_takes_long(config: MakeConfig) -> None:
    """A call waits for the disk, other tasks do not; reads do not either."""

    async def main() -> None:
        async with AsyncTracker(config(), destination=RecordingDestination) as tracker:
            session_id = await tracker.performance.start_conversation("agent-1")
            with Held(outbox_of(config())):
                call = asyncio.create_task(
                    tracker.performance.log_user_message(session_id, "waits for the disk")
                )
                for _ in range(50):
                    await asyncio.sleep(0.001)
                assert not call.done(), "acknowledged before it was on disk"
                assert await tracker.performance.get_conversation_history(session_id) == ()
            await call
            assert stored(config().outbox_path) == ["waits for the disk"]

    asyncio.run(main())


def test_nothing_of_a_call_runs_on_the_loop(config: MakeConfig) -> None:
    """Redaction, which may take its time, and opening, which may migrate, run in threads."""
    ran_in: list[int] = []

    def redact(text: str) -> str:
        ran_in.append(threading.get_ident())
        return text

    def destination() -> RecordingDestination:
        ran_in.append(threading.get_ident())
        return RecordingDestination()

    async def main() -> None:
        settings = config(redactors=(redact,))
        async with AsyncAgentPerformanceTracker(settings, destination=destination) as tracker:
            await tracker.log_user_message("s", "hello")
            await tracker.flush()

    asyncio.run(main())
    assert len(ran_in) >= 2
    assert threading.get_ident() not in ran_in


def test_calls_gathered_share_a_commit_and_keep_their_order(config: MakeConfig) -> None:
    """What many tasks log while the disk is busy is committed together, in the calls' order."""
    commits: list[int] = []

    async def main() -> None:
        async with AsyncAgentPerformanceTracker(
            config(), destination=RecordingDestination
        ) as tracker:
            await tracker.start_conversation("agent-1", session_id="s")
            outbox = outbox_of(config())
            outbox.on_commit = lambda: commits.append(1)
            with Held(outbox):
                calls = [
                    asyncio.create_task(tracker.log_user_message("s", str(n))) for n in range(200)
                ]
                await asyncio.sleep(0)
                while tracker._calls._logging.busy:
                    await asyncio.sleep(0.001)
            await asyncio.gather(*calls)

    asyncio.run(main())
    assert stored(config().outbox_path) == [str(n) for n in range(200)]
    assert len(commits) <= 2, "those that came first were on their way already"


def test_errors_reach_the_task(
    config: MakeConfig,
    locked: Callable[[], sqlite3.Connection],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wrong arguments and failed storage raise where the call is awaited; nothing is stored."""

    async def main() -> None:
        settings = config(on_error="raise")
        async with AsyncAgentPerformanceTracker(settings) as tracker:
            session_id = await tracker.start_conversation("agent-1")
            with pytest.raises(ValidationError, match="content"):
                await tracker.log_user_message(session_id, 5)  # type: ignore[arg-type]  # that is the test
            with pytest.raises(ValidationError, match="no conversation is current"):
                await tracker.log_user_message(content="whose?")
            with pytest.raises(ValidationError, match="timeout"):
                await tracker.close(timeout="soon")  # type: ignore[arg-type]  # closes nothing
            other = locked()
            calls = [tracker.log_user_message(session_id, str(n)) for n in range(3)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [OutboxError] * 3
            with pytest.raises(OutboxError):
                await tracker.end_conversation(session_id)
            other.execute("ROLLBACK")
            await tracker.log_user_message(session_id, "works again")
            assert "has ended" not in caplog.text, "it could not be ended"
            await tracker.close(timeout=0)

    asyncio.run(main())
    assert stored(config().outbox_path) == ["works again"]


def test_events_that_the_disk_refuses_wait_in_memory(
    config: MakeConfig, locked: Callable[[], sqlite3.Connection]
) -> None:
    """With `on_error="degrade"` calls go on while the disk fails, and nothing is lost or mixed."""

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(config(), destination=RecordingDestination)
        await tracker.start_conversation("agent-1", session_id="s")
        other = locked()
        await asyncio.gather(*(tracker.log_user_message("s", str(n)) for n in range(20)))
        assert stored(config().outbox_path) == []
        other.execute("ROLLBACK")
        await tracker.close()

    asyncio.run(main())
    assert stored(config().outbox_path) == [str(n) for n in range(20)]


def test_a_cancelled_call_is_stored_all_the_same(config: MakeConfig) -> None:
    """Cancelling ends the await at once, without waiting for the disk, and loses nothing."""

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(config(), destination=RecordingDestination)
        session_id = await tracker.start_conversation("agent-1")
        with Held(outbox_of(config())):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(tracker.log_user_message(session_id, "cancelled"), 0.01)
            later = asyncio.create_task(tracker.log_user_message(session_id, "after it"))
            await asyncio.sleep(0)
        await later
        await tracker.close()

    asyncio.run(main())
    assert stored(config().outbox_path) == ["cancelled", "after it"]


def test_the_log_tells_of_a_cancelled_call_that_failed(
    config: MakeConfig,
    locked: Callable[[], sqlite3.Connection],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody hears the error of a call that nobody waits for, so it is logged."""

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(config(on_error="raise"))
        session_id = await tracker.start_conversation("agent-1")
        with Held(outbox_of(config())):
            call = asyncio.create_task(tracker.log_user_message(session_id, "cancelled"))
            await asyncio.sleep(0.01)
            call.cancel()
        while stored(config().outbox_path) != ["cancelled"]:
            await asyncio.sleep(0.001)
        other = locked()
        failing = asyncio.create_task(tracker.log_user_message(session_id, "cancelled as well"))
        await asyncio.sleep(0)
        failing.cancel()
        while "await was cancelled failed" not in caplog.text:
            await asyncio.sleep(0.001)
        other.execute("ROLLBACK")
        await tracker.close(timeout=0)

    asyncio.run(main())
    assert stored(config().outbox_path) == ["cancelled"]


def test_the_current_conversation_reaches_tasks(config: MakeConfig) -> None:
    """Tasks log to the conversation that they were started in, each to its own."""
    destination = RecordingDestination()

    async def main() -> None:
        async with AsyncTracker(config(), destination=lambda: destination) as tracker:

            async def converse(agent_id: str) -> None:
                async with tracker.performance.conversation(agent_id) as c:
                    current = current_conversation()
                    assert current is not None
                    assert current.session_id == c.session_id
                    say = tracker.performance.log_user_message
                    await asyncio.gather(*(say(content=agent_id) for _ in range(5)))
                assert current_conversation() is None

            await asyncio.gather(*(converse(f"agent-{n}") for n in range(10)))

    asyncio.run(main())
    said = [event for event in destination.events if event["type"] == "message.logged"]
    assert len(said) == 50
    assert all(event["agent_id"] == event["data"]["content"] for event in said)


def test_a_conversation_fails_with_what_escapes(
    config: MakeConfig, locked: Callable[[], sqlite3.Connection]
) -> None:
    """An exception marks it failed and goes on, also when even that cannot be stored."""
    destination = RecordingDestination()

    async def break_off(tracker: AsyncAgentPerformanceTracker, then: Callable[[], object]) -> None:
        async with tracker.conversation("agent-1") as c:
            async with c.tool("search") as call:
                call.result = 3
            async with c.tool("search", {"q": "x"}):
                then()
                raise ZeroDivisionError("by hand")

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(
            config(on_error="raise"), destination=lambda: destination
        )
        with pytest.raises(ZeroDivisionError):
            await break_off(tracker, lambda: None)
        await tracker.flush()
        with pytest.raises(ZeroDivisionError):
            await break_off(tracker, locked)
        await tracker.close(timeout=0)

    asyncio.run(main())
    assert [(e["type"], e["data"].get("error")) for e in destination.events[1:4]] == [
        ("tool.called", None),
        ("tool.called", "ZeroDivisionError: by hand"),
        ("conversation.failed", None),
    ]
    assert destination.events[3]["data"]["error_type"] == "ZeroDivisionError"


def test_a_tool_call_neither_awaited_nor_entered_is_logged(config: MakeConfig) -> None:
    """A forgotten `await` costs no event."""
    destination = RecordingDestination()

    async def main() -> None:
        async with (
            AsyncAgentPerformanceTracker(config(), destination=lambda: destination) as tracker,
            tracker.conversation("agent-1") as c,
        ):
            c.tool("search", {"q": "x"}, result=1, duration_ms=2.5)
            logged = await c.tool("find", result=2)
            assert logged.event_id is not None
            with pytest.raises(ValidationError, match="logged or entered before"):
                await logged

    asyncio.run(main())
    called = [event["data"] for event in destination.events if event["type"] == "tool.called"]
    assert called == [
        {"name": "find", "arguments": None, "result": 2},
        {"name": "search", "arguments": {"q": "x"}, "result": 1, "duration_ms": 2.5},
    ]


def test_observed_calls_are_recorded_off_the_loop(config: MakeConfig) -> None:
    """Coroutines and async generators are recorded, durably when they are over, nested."""
    destination = RecordingDestination()
    loop_thread = threading.get_ident()
    committed_by: set[int] = set()

    async def main() -> None:
        async with AsyncAgentPerformanceTracker(
            config(), destination=lambda: destination
        ) as tracker:

            @tracker.observe(agent_id="agent-1")
            async def answer(question: str) -> str:
                return "".join([word async for word in words(question)])

            @tracker.observe()
            async def words(question: str) -> Any:
                yield question
                await tracker.log_agent_message(content="thinking")
                yield "!"

            await tracker.track("test.opened")
            outbox_of(config()).on_commit = lambda: committed_by.add(threading.get_ident())
            assert await answer("what") == "what!"
            closed_early = words("who")
            assert await closed_early.__anext__() == "who"
            await closed_early.aclose()
            with pytest.raises(ValidationError, match="is neither a coroutine function"):
                tracker.observe()(len)
            await tracker.flush()

    asyncio.run(main())
    assert loop_thread not in committed_by
    assert [event["type"] for event in destination.events][1:] == [
        "conversation.started",
        "message.logged",
        "function.observed",
        "function.observed",
        "conversation.ended",
        "function.observed",
    ]
    inner, outer, early = (
        event["data"] for event in destination.events if event["type"] == "function.observed"
    )
    assert (early["result"], early.get("error")) == (["who"], None)
    assert (inner["result"], outer["result"]) == (["what", "!"], "what!")
    assert inner["parent_call_id"] == outer["call_id"]


def test_what_is_observed_does_not_fail_with_the_disk(
    config: MakeConfig, locked: Callable[[], sqlite3.Connection]
) -> None:
    """Results and exceptions pass through though nothing can be recorded."""

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(config(on_error="raise"))

        @tracker.observe(agent_id="agent-1")
        async def divide(by: int) -> float:
            return 1 / by

        assert await divide(1) == 1
        locked()
        assert await divide(2) == 0.5
        with pytest.raises(ZeroDivisionError):
            await divide(0)
        await tracker.close(timeout=0)

    asyncio.run(main())


def test_loops_of_several_threads_share_a_tracker(config: MakeConfig) -> None:
    """A tracker belongs to no loop: each call comes back to its own."""
    tracker = AsyncAgentPerformanceTracker(config(), destination=RecordingDestination)

    async def work(name: str) -> None:
        await asyncio.gather(*(tracker.log_user_message(name, f"{name} {n}") for n in range(50)))

    workers = [
        threading.Thread(target=lambda name=name: asyncio.run(work(name)))
        for name in ("a", "b", "c", "d")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    asyncio.run(tracker.close())
    kept = stored(config().outbox_path)
    assert len(kept) == 200
    for name in ("a", "b", "c", "d"):
        own = [content for content in kept if content.startswith(name)]
        assert own == [f"{name} {n}" for n in range(50)]


def test_closing_stores_what_was_logged_and_refuses_later_calls(config: MakeConfig) -> None:
    """Close stores what was logged before, ends the threads, and later calls are refused."""

    async def main() -> None:
        tracker = AsyncTracker(config(), destination=RecordingDestination)
        await tracker.performance.start_conversation("agent-1", session_id="s")
        await tracker.llm.close()
        with pytest.raises(TrackerClosedError, match="this AsyncLLMTracker was closed"):
            await tracker.llm.get_usage()
        late = [
            asyncio.create_task(tracker.performance.log_user_message("s", str(n)))
            for n in range(50)
        ]
        await asyncio.sleep(0)
        assert (await tracker.close()).pending == 0
        assert len(await asyncio.gather(*late)) == 50
        await_(lambda: not threads())
        assert await tracker.close() == FlushResult()
        for name, call in (
            ("AsyncTracker", tracker.performance.log_user_message("s", "m")),
            ("AsyncLLMTracker", tracker.llm.get_usage()),
            ("AsyncTracker", tracker.flush()),
            ("AsyncTracker", tracker.__aenter__()),
        ):
            with pytest.raises(TrackerClosedError, match=f"this {name} was closed; make a new one"):
                await call
        unopened = AsyncTracker(config())
        await unopened.close()
        with pytest.raises(TrackerClosedError, match="was closed; make a new one"):
            await unopened.llm.get_usage()
        await_(lambda: not threads())

    asyncio.run(main())
    assert stored(config().outbox_path) == [str(n) for n in range(50)]


def test_opening_is_awaited_and_says_what_is_wrong(config: MakeConfig) -> None:
    """Making a tracker touches no outbox; entering does, and raises what opening raises."""

    async def main() -> None:
        settings = config()
        settings.outbox_path.write_bytes(b"this is no database, though long enough to be one" * 9)
        tracker = AsyncTracker(settings)
        assert "not opened yet" in repr(tracker)
        with pytest.raises(OutboxError, match="is not"):
            await tracker.__aenter__()
        with pytest.raises(OutboxError, match="is not"):
            await tracker.track("cart.abandoned")
        await tracker.close()
        with pytest.raises(ConfigurationError, match="give an APIConfig"):
            AsyncTracker({"api_key": "k"})  # type: ignore[arg-type]  # that is the test
        await_(lambda: not threads())

    asyncio.run(main())


def test_a_forgotten_tracker_leaves_no_thread(config: MakeConfig) -> None:
    """Whoever forgets to close loses nothing and leaks nothing."""

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(config(), destination=RecordingDestination)
        await tracker.log_user_message("s", "stored")

    asyncio.run(main())
    await_(lambda: not threads())
    assert stored(config().outbox_path) == ["stored"]
    AgentPerformanceTracker(config(), destination=RecordingDestination).close()
