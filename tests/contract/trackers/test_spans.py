"""Spans: what is logged belongs to the innermost one, over threads, tasks and generators."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import tracker as package
from tracker import (
    AgentPerformanceTracker,
    APIConfig,
    AsyncTracker,
    LLMTracker,
    Tracker,
    ValidationError,
    bind,
    inject,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.conftest import MakeConfig
    from tests.support.recorded import Recorded


@pytest.fixture
def tracker(recorded: Recorded) -> AgentPerformanceTracker:
    return recorded.tracker


class Traced:
    """Events by what they are, and what each belongs to."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events

    def one(self, type: str, **fields: Any) -> dict[str, Any]:
        (found,) = [
            event
            for event in self.events
            if event["type"] == type
            and all(event["data"].get(name) == value for name, value in fields.items())
        ]
        return found

    def span(self, name: str) -> dict[str, Any]:
        (found,) = [event for event in self.events if event["data"].get("name") == name]
        return found


def ids(event: dict[str, Any]) -> tuple[str, str, str | None]:
    trace = event["trace"]
    return trace["trace_id"], trace["span_id"], trace.get("parent_span_id")


def is_in(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    """Return True if the one is a span inside the other."""
    return ids(inner)[::2] == ids(outer)[:2] and ids(inner)[1] != ids(outer)[1]


def test_a_span_is_recorded_with_what_it_took_and_gave(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Name, input, output, attributes, duration, and ids of the sizes of W3C."""
    taken = {"q": [1]}
    with tracker.span("retrieve", input=taken, attributes={"index": "faq"}) as span:
        taken["q"].append(2)
        span.attributes["hits"] = 2
        span.output = {"ids": (1, 2)}
    (event,) = recorded.events
    assert event["type"] == "span.recorded"
    assert event["event_id"] == span.event_id
    assert event["data"].pop("duration_ms") >= 0
    assert event["data"] == {
        "name": "retrieve",
        "input": {"q": [1]},
        "output": {"ids": [1, 2]},
        "attributes": {"index": "faq", "hits": 2},
    }
    assert event["trace"] == {"trace_id": span.trace_id, "span_id": span.span_id}
    assert (len(span.trace_id), len(span.span_id), span.parent_span_id) == (32, 16, None)
    assert span.trace_id.strip("0")
    assert span.span_id.strip("0")


def test_an_event_outside_of_any_span_has_no_trace(recorded: Recorded) -> None:
    """And costs nothing more."""
    session = recorded.tracker.start_conversation("a")
    recorded.tracker.log_user_message(session, "hello")
    recorded.tracker.log_tool_call(session, "search", {})
    recorded.tracker.track("cart.abandoned")
    assert [event.get("trace") for event in recorded.events] == [None] * 4


def test_everything_inside_belongs_to_the_span(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Spans, observed functions and tool blocks are its children; the rest carries its ids."""

    @tracker.observe(name="look")
    def look() -> None:
        tracker.track("in.function")

    with tracker.span("outer"):
        tracker.track("in.outer")
        with tracker.span("inner"):
            tracker.track("in.inner")
            look()
        with tracker.conversation("agent") as c:
            c.user("hello")
            with c.tool("block"):
                tracker.track("in.tool")
            c.tool("at once", result=1)
            with LLMTracker(recorded.tracker.config) as llm:
                llm.record_usage("p", "m", 1, 1, cost_usd=0)
        tracker.track("after.all")
    found = Traced(recorded.events)
    outer, inner, call = found.span("outer"), found.span("inner"), found.span("look")
    talk = found.one("conversation.ended")
    assert ids(outer)[2] is None
    assert is_in(inner, outer)
    assert is_in(call, inner)
    assert is_in(talk, outer)
    assert is_in(found.span("block"), talk)
    assert is_in(found.span("at once"), talk)
    for name, span in (
        ("in.outer", outer),
        ("in.inner", inner),
        ("in.function", call),
        ("conversation.started", talk),
        ("message.logged", talk),
        ("in.tool", found.span("block")),
        ("llm.used", talk),
        ("after.all", outer),
    ):
        assert found.one(name)["trace"] == span["trace"], name
    assert len({event["trace"]["trace_id"] for event in found.events}) == 1


def test_turns_of_a_conversation_are_traces(recorded: Recorded) -> None:
    """A turn goes from a message of the user to the next one after an answer."""
    tracker = recorded.tracker
    with tracker.conversation("agent") as c:
        c.system("be brief")
        c.user("one")
        c.user("please")
        with tracker.span("first"):
            pass
        c.agent("yes")
        c.feedback(score=1)
        c.user("two")
        with tracker.span("second"):
            tracker.track("in.second")
        tracker.log_agent_message(content="no")
    found = Traced(recorded.events)
    first = found.one("conversation.started")["trace"]
    second = found.one("message.logged", content="two")["trace"]
    assert first["trace_id"] != second["trace_id"]
    assert first["turn"] is second["turn"] is True
    assert "parent_span_id" not in first
    assert "turn" not in found.span("first")["trace"]
    for content in ("be brief", "one", "please", "yes"):
        assert found.one("message.logged", content=content)["trace"] == first
    assert found.one("feedback.recorded")["trace"] == first
    assert found.one("message.logged", content="no")["trace"] == second
    assert found.one("conversation.ended")["trace"] == second
    assert is_in(found.span("first"), found.one("conversation.started"))
    assert is_in(found.span("second"), found.one("message.logged", content="two"))


def test_a_conversation_in_a_conversation_is_a_span(recorded: Recorded) -> None:
    """One agent that asks another is one trace."""
    tracker = recorded.tracker
    with tracker.conversation("a") as outer:
        outer.user("hello")
        with tracker.conversation("b") as inner:
            inner.user("hello")
            inner.agent("hi")
            inner.user("bye")
        outer.agent("hi")
    ended = [event for event in recorded.events if event["type"] == "conversation.ended"]
    assert is_in(*ended)
    assert len({event["trace"]["trace_id"] for event in recorded.events}) == 1


def test_an_observed_function_with_an_agent_is_the_span_of_its_conversation(
    recorded: Recorded,
) -> None:
    """Start, messages and end carry the function's ids."""

    @recorded.tracker.observe(agent_id="a", name="answer")
    def answer() -> None:
        recorded.tracker.log_user_message(content="hello")
        recorded.tracker.log_agent_message(content="hi")
        recorded.tracker.log_user_message(content="bye")

    answer()
    assert len(recorded.events) == 6
    assert len({json.dumps(event["trace"]) for event in recorded.events}) == 1


def test_an_exception_marks_the_span_and_passes(
    recorded: Recorded, tracker: AgentPerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Type and text are recorded with the output so far; the exception is the same object."""
    boom = LookupError("not here \ud800")
    span = tracker.span("s")
    span.output = 1
    with pytest.raises(LookupError) as caught, span:
        raise boom
    assert caught.value is boom
    with tracker.span("told") as span:
        span.error = "the index is empty"
    with tracker.span("caught") as span:
        span.error = boom  # type: ignore[assignment]  # it is what people will do
    first, told, other = [event["data"] for event in recorded.events]
    assert (first["error_type"], first["error"]) == ("LookupError", "not here \\ud800")
    assert first["output"] == 1
    assert told["error"] == "the index is empty"
    assert "error_type" not in told
    assert (other["error_type"], other["error"]) == ("LookupError", "not here \\ud800")
    assert not caplog.records


class SealedError(Exception):
    """An exception of which nothing can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", ["span", "conversation", "function", "tool"])
def test_an_exception_that_cannot_be_read_passes_and_is_named(
    recorded: Recorded, tracker: AgentPerformanceTracker, kind: str
) -> None:
    boom, passed = SealedError(), None

    @tracker.observe
    def fail() -> None:
        raise boom

    with tracker.conversation("a") as c:
        blocks: dict[str, Any] = {
            "span": tracker.span("s"),
            "conversation": tracker.conversation("b"),
            "function": contextlib.nullcontext(),
            "tool": c.tool("t", {}),
        }
        try:
            with blocks[kind]:
                if kind == "function":
                    fail()
                raise boom
        except BaseException as error:  # noqa: BLE001 - pytest would read it
            passed = type(error)
    assert passed is SealedError
    (failed,) = [event for event in recorded.events if "SealedError" in str(event["data"])]
    assert failed["data"].keys() & {"error_type", "error"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": ""}, "name: is empty"),
        ({"name": 5}, "name: is of type int"),
        ({"name": "x" * 257}, "name: "),
        ({"name": "s", "attributes": [1]}, "attributes: is of type list; give a dict"),
    ],
)
def test_a_wrong_argument_raises_at_once(
    tracker: AgentPerformanceTracker, arguments: dict[str, Any], problem: str
) -> None:
    """It is a mistake in the code, and not a failure."""
    with pytest.raises(ValidationError, match=f"^{problem}"):
        tracker.span(**arguments)


def test_a_span_is_entered_once(tracker: AgentPerformanceTracker) -> None:
    """A second time would be another span."""
    span = tracker.span("s")
    with span:
        pass
    with pytest.raises(ValidationError, match=r"^span: was entered before"):
        span.__enter__()


def test_a_tracker_that_fails_never_affects_the_block(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A closed tracker, and values that cannot be read: said once; the block ends as it does."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("never again")

    closed = AgentPerformanceTracker(config())
    closed.close(timeout=0)
    for _ in range(3):
        with closed.span("s", input=Odd(), attributes={"odd": Odd()}) as span:
            span.output = Odd()
        with pytest.raises(KeyError), closed.span("s"):
            raise KeyError
    assert span.event_id is None
    assert len([r for r in caplog.records if "the span 's' was not recorded" in r.message]) == 1


def test_values_of_any_size_fit_into_an_event(recorded: Recorded) -> None:
    """They are truncated, not lost."""
    long = "\x00" * 2_000_000
    with recorded.tracker.span("s", input=long, attributes={long[:300]: long}) as span:
        span.output = [long, long]
        span.error = long
    (event,) = recorded.events
    assert set(event["data"]) >= {"name", "input", "output", "attributes", "error", "duration_ms"}


def test_secrets_are_masked_and_content_is_left_out_on_request(
    config: MakeConfig, recorded: Recorded
) -> None:
    """In input, output and attributes; without content, names, sizes and durations are kept."""
    secret = "sk-proj-" + "a1B2" * 12
    with recorded.tracker.span("s", input=secret, attributes={"password": "hunter22"}) as span:
        span.output = {"key": f"it is {secret}"}
    text = json.dumps(recorded.events)
    assert secret not in text
    assert "hunter22" not in text
    with Tracker(config(outbox_path=recorded.tracker.config.outbox_path.with_name("bare"),
                        capture_content=False)) as bare:  # fmt: skip
        with bare.span("s", input="private", attributes={"place": "private"}) as span:
            span.output = span.error = "private"
        with contextlib.closing(sqlite3.connect(bare.config.outbox_path)) as connection:
            ((data,),) = connection.execute("SELECT data FROM events")
    assert "private" not in data
    kept = json.loads(data)
    assert kept["name"] == "s"
    assert kept["attributes"] == {"place": "[not captured: 7 characters]"}


def test_threads_have_the_span_through_bind(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Without it, a thread begins a trace of its own; executors too."""

    def work(name: str) -> None:
        with tracker.span(name):
            pass

    with tracker.span("outer"), ThreadPoolExecutor(2) as pool:
        list(pool.map(bind(work), ["bound 1", "bound 2"]))
        thread = threading.Thread(target=work, args=("alone",))
        thread.start()
        thread.join()
    found = Traced(recorded.events)
    assert is_in(found.span("bound 1"), found.span("outer"))
    assert is_in(found.span("bound 2"), found.span("outer"))
    assert ids(found.span("alone"))[0] != ids(found.span("outer"))[0]


def test_tasks_have_the_span_in_which_they_were_made(config: MakeConfig) -> None:
    """Side by side they do not mix; an async tracker's spans are written beside the loop."""

    async def branch(tracker: AsyncTracker, number: int) -> None:
        async with tracker.span(f"branch {number}"):
            await asyncio.sleep(0)
            async with tracker.span(f"leaf {number}") as leaf:
                await asyncio.sleep(0)
                leaf.output = number

    async def main() -> None:
        async with AsyncTracker(settings) as tracker:
            async with tracker.span("root"):
                await asyncio.gather(*(branch(tracker, number) for number in range(20)))
            with pytest.raises(KeyError):
                async with tracker.span("failed"):
                    raise KeyError("x")

    settings = config()
    asyncio.run(main())
    found = Traced(stored(settings))
    for number in range(20):
        assert is_in(found.span(f"leaf {number}"), found.span(f"branch {number}"))
        assert is_in(found.span(f"branch {number}"), found.span("root"))
    assert found.span("failed")["data"]["error_type"] == "KeyError"


def stored(settings: APIConfig) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(settings.outbox_path)) as connection:
        rows = connection.execute("SELECT type, data, trace FROM events ORDER BY seq").fetchall()
    return [
        {"type": type_, "data": json.loads(data), "trace": json.loads(trace or "{}")}
        for type_, data, trace in rows
    ]


def test_a_generators_span_is_current_only_while_its_own_code_runs(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Its consumer logs to the span around it, and a span left open over a yield stays inside."""

    @tracker.observe(name="numbers")
    def numbers() -> Generator[int, None, None]:
        with tracker.span("kept open"):
            yield 1
            tracker.track("from.generator")
            yield 2

    @tracker.observe(name="letters")
    async def letters() -> AsyncGenerator[str, None]:
        async with tracker.span("kept open too"):
            yield "a"
            tracker.track("from.letters")
            yield "b"

    async def consume() -> None:
        async for _ in letters():
            tracker.track("from.reader")

    with tracker.span("consumer"):
        for number in numbers():
            if number == 1:
                tracker.track("from.consumer")
    with tracker.span("reader"):
        asyncio.run(consume())
    found = Traced(recorded.events)
    assert found.one("from.consumer")["trace"] == found.span("consumer")["trace"]
    assert found.one("from.generator")["trace"] == found.span("kept open")["trace"]
    assert is_in(found.span("kept open"), found.span("numbers"))
    assert found.one("from.letters")["trace"] == found.span("kept open too")["trace"]
    assert is_in(found.span("kept open too"), found.span("letters"))
    read = [event for event in found.events if event["type"] == "from.reader"]
    assert [event["trace"] for event in read] == [found.span("reader")["trace"]] * 2


def test_spans_may_be_left_in_any_order(tracker: AgentPerformanceTracker) -> None:
    """As plain generators leave them: what is still open stays current, and at the end nothing."""

    def step(name: str) -> Generator[str, None, None]:
        with tracker.span(name) as span:
            yield span.span_id

    one, two, three = step("1"), step("2"), step("3")
    first = next(one)
    next(two)
    next(three)
    two.close()
    three.close()
    assert tracker.span("s").parent_span_id == first
    one.close()
    assert tracker.span("s").parent_span_id is None


def test_a_span_left_in_another_context_changes_nothing_there(
    tracker: AgentPerformanceTracker,
) -> None:
    """As frameworks do it that run a block's two ends in different tasks."""

    async def main() -> None:
        span = tracker.span("s")
        await asyncio.create_task(span.__aenter__())
        with tracker.span("other") as other:
            await span.__aexit__(None, None, None)
            assert tracker.span("x").parent_span_id == other.span_id

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_continues_the_trace_with_ids_of_its_own(config: MakeConfig) -> None:
    """Parent and child draw different ids inside the same span."""
    settings = config()
    with AgentPerformanceTracker(settings) as tracker, tracker.span("outer"):
        child = os.fork()
        if child == 0:  # pragma: no cover - the parent measures
            with tracker.span("child"):
                pass
            os._exit(0)
        with tracker.span("parent"):
            pass
        assert os.waitpid(child, 0)[1] == 0
    found = Traced(stored(settings))
    assert is_in(found.span("child"), found.span("outer"))
    assert is_in(found.span("parent"), found.span("outer"))
    assert ids(found.span("child"))[1] != ids(found.span("parent"))[1]


def test_a_log_record_belongs_to_the_span(recorded: Recorded) -> None:
    """`TrackerHandler` logs where the application does."""
    logger = logging.getLogger("application")
    handler = package.TrackerHandler(recorded.tracker)
    logger.addHandler(handler)
    try:
        with recorded.tracker.span("s"):
            logger.warning("look out")
    finally:
        logger.removeHandler(handler)
    found = Traced(recorded.events)
    assert found.one("log.recorded")["trace"] == found.span("s")["trace"]


def test_the_default_tracker_records_spans(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tracker.span` needs no instance; without a key it only times nothing."""
    settings = config()
    package.configure(settings)
    with package.span("s", input=1) as span:
        headers: dict[str, str] = {}
        package.inject(headers)
    package.get_tracker().close(timeout=0)
    assert headers["traceparent"].split("-")[1:3] == [span.trace_id, span.span_id]
    assert [event["data"]["name"] for event in stored(settings)] == ["s"]


# --- OpenTelemetry ------------------------------------------------------------------------------


class Api(ModuleType):
    """Stands in for ``opentelemetry.trace``: what is current there."""

    current: Any = None

    def get_current_span(self) -> Any:
        return self.current

    def become(self, trace_id: int, span_id: int, *, valid: bool = True) -> None:
        found = SimpleNamespace(
            trace_id=trace_id, span_id=span_id, is_valid=valid, trace_flags=1, trace_state=None
        )
        self.current = SimpleNamespace(get_span_context=lambda: found)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    module = Api("opentelemetry.trace")
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    module.become(0, 0, valid=False)
    return module


def test_a_span_of_opentelemetry_becomes_the_parent(
    recorded: Recorded, tracker: AgentPerformanceTracker, api: Api
) -> None:
    """The innermost of both kinds: inside ours, one of theirs that began later, and back."""
    api.become(7, 8)
    tracker.track("in.theirs")
    with tracker.span("ours"):
        tracker.track("in.ours")
        api.become(7, 9)
        with tracker.span("innermost"):
            pass
        headers: dict[str, str] = {}
        inject(headers)
        api.become(7, 8)
        tracker.track("back.in.ours")
    found = Traced(recorded.events)
    assert ids(found.one("in.theirs")) == (f"{7:032x}", f"{8:016x}", None)
    assert ids(found.span("ours"))[::2] == (f"{7:032x}", f"{8:016x}")
    assert ids(found.span("innermost"))[::2] == (f"{7:032x}", f"{9:016x}")
    assert found.one("in.ours")["trace"] == found.span("ours")["trace"]
    assert found.one("back.in.ours")["trace"] == found.span("ours")["trace"]
    assert headers["traceparent"] == f"00-{7:032x}-{9:016x}-01"


def test_an_invalid_span_of_opentelemetry_is_ignored(
    recorded: Recorded, tracker: AgentPerformanceTracker, api: Api
) -> None:
    """So is an API that fails, or is only half imported."""
    tracker.track("without.span")
    api.current = SimpleNamespace(get_span_context=lambda: 1 / 0)
    tracker.track("with.error")
    api.become(1 << 200, 1)
    tracker.track("with.nonsense")
    del Api.get_current_span
    try:
        tracker.track("half.imported")
    finally:
        Api.get_current_span = lambda self: self.current  # type: ignore[method-assign]
    assert [event.get("trace") for event in recorded.events] == [None] * 4


def test_a_generator_is_its_own_even_where_its_consumer_is_in_a_span_of_opentelemetry(
    recorded: Recorded, tracker: AgentPerformanceTracker, api: Api
) -> None:
    """What runs between its steps is not inside of it."""

    @tracker.observe(name="numbers")
    def numbers() -> Generator[int, None, None]:
        yield 1
        tracker.track("from.generator")

    steps = numbers()
    next(steps)
    api.become(7, 8)
    tracker.track("from.consumer")
    assert list(steps) == []
    found = Traced(recorded.events)
    assert found.one("from.generator")["trace"] == found.span("numbers")["trace"]
    assert ids(found.one("from.consumer"))[0] == f"{7:032x}"


def test_the_real_api_of_opentelemetry(recorded: Recorded) -> None:
    """Its own objects, where it is installed: ids, flags and state are taken over."""
    trace = pytest.importorskip("opentelemetry.trace")
    state = trace.TraceState([("vendor", "1")])
    found = trace.SpanContext(0x12, 0x34, is_remote=False, trace_flags=trace.TraceFlags(0),
                              trace_state=state)  # fmt: skip
    headers: dict[str, str] = {}
    with trace.use_span(trace.NonRecordingSpan(found)), recorded.tracker.span("s") as span:
        inject(headers)
    assert (span.trace_id, span.parent_span_id) == (f"{0x12:032x}", f"{0x34:016x}")
    assert headers == {
        "traceparent": f"00-{span.trace_id}-{span.span_id}-00",
        "tracestate": "vendor=1",
    }
