"""`observe`: every kind of function, recorded, and otherwise as if it were not there."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker, ValidationError, bind, current_conversation
from tracker.client import Client
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from tests.conftest import MakeConfig
    from tests.support.recorded import Recorded


@pytest.fixture
def tracker(recorded: Recorded) -> AgentPerformanceTracker:
    return recorded.tracker


def without_ids(call: dict[str, Any]) -> dict[str, Any]:
    hidden = ("call_id", "parent_call_id", "duration_ms", "depth", "traceback")
    return {name: value for name, value in call.items() if name not in hidden}


def test_an_observed_function_is_recorded_and_looks_the_same(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Name, arguments by parameter, result and duration; the function itself looks the same."""

    @tracker.observe(name="add")
    def add(a: int, b: int = 2, *rest: int, **more: int) -> int:
        """Add."""
        return a + b

    assert add(1) == 3
    assert add(1, 1, 5, c=6) == 2
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert [without_ids(call) for call in recorded.calls] == [
        {"name": "add", "arguments": {"a": 1}, "result": 3},
        {
            "name": "add",
            "arguments": {"a": 1, "b": 1, "rest": [5], "more": {"c": 6}},
            "result": 2,
        },
    ]
    first = recorded.calls[0]
    assert first["depth"] == 0
    assert "parent_call_id" not in first
    assert 0 <= first["duration_ms"] < 60_000
    assert [e["session_id"] for e in recorded.events] == [None, None]


def test_an_exception_passes_through(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """It is the same object; type and text are recorded, and no result."""
    boom = LookupError("not here \ud800")

    @tracker.observe(name="f")
    def fail() -> None:
        raise boom

    with pytest.raises(LookupError) as caught:
        fail()
    assert caught.value is boom
    assert [without_ids(call) for call in recorded.calls] == [
        {"name": "f", "arguments": {}, "error": "not here \\ud800", "error_type": "LookupError"}
    ]


def test_an_observed_method_is_recorded_without_self_or_cls(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Of instances and classes, and static ones; neither self nor cls is an argument."""

    class Agent:
        @tracker.observe()
        def answer(self, question: str) -> str:
            return question.upper()

        @classmethod
        @tracker.observe()
        def make(cls, size: int) -> int:
            return size

        @staticmethod
        @tracker.observe()
        def look(at: str) -> str:
            return at

    assert Agent().answer("a") == "A"
    assert (Agent.make(3), Agent.look("x")) == (3, "x")
    assert [call["arguments"] for call in recorded.calls] == [
        {"question": "a"},
        {"size": 3},
        {"at": "x"},
    ]
    assert recorded.calls[0]["name"].endswith("Agent.answer")


def test_an_observed_coroutine_stays_one_and_its_awaiting_is_timed(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """It stays a coroutine function; its duration is that of the awaiting."""

    @tracker.observe(name="wait")
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        if not seconds:
            raise TimeoutError("no time")
        return "waited"

    assert inspect.iscoroutinefunction(wait)
    assert asyncio.run(wait(0.05)) == "waited"
    with pytest.raises(TimeoutError):
        asyncio.run(wait(0))
    good, bad = recorded.calls
    assert without_ids(good) == {"name": "wait", "arguments": {"seconds": 0.05}, "result": "waited"}
    assert good["duration_ms"] >= 49
    assert bad["error_type"] == "TimeoutError"


def test_a_cancelled_coroutine(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """Cancellation is an error like others, and goes on."""

    @tracker.observe(name="for ever")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 0.01)

    asyncio.run(main())
    assert recorded.calls[0]["error_type"] == "CancelledError"


def test_an_observed_generator_works_as_before_and_its_items_are_recorded(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Items are the output; it takes what is sent and thrown in, and returns, as before."""

    @tracker.observe(name="g")
    def echo(first: str) -> Generator[str, str, str]:
        said = yield first
        try:
            said = yield said
        except KeyError as error:
            said = yield f"caught {error}"
        return said

    assert inspect.isgeneratorfunction(echo)
    steps = echo("a")
    assert next(steps) == "a"
    assert steps.send("b") == "b"
    assert recorded.calls == []
    assert steps.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stopped:
        steps.send("returned")
    assert stopped.value.value == "returned"
    assert [without_ids(call) for call in recorded.calls] == [
        {"name": "g", "arguments": {"first": "a"}, "items": 3, "result": ["a", "b", "caught 'k'"]}
    ]


def test_generators_that_do_not_end_well(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Closed early is no error; one that fails keeps its items; one never begun is no call."""
    closed = []

    @tracker.observe(name="g")
    def count(to: int) -> Generator[int, None, None]:
        try:
            yield from range(to)
            raise OSError("out of numbers")
        finally:
            closed.append(to)

    for number in count(10):
        if number == 1:
            break
    assert closed == [10]
    steps = count(2)
    with pytest.raises(OSError, match="out of numbers"):
        list(steps)
    count(3).close()
    early, failed = recorded.calls
    assert (early["items"], early["result"], early.get("error")) == (2, [0, 1], None)
    assert (failed["items"], failed["error"]) == (2, "out of numbers")
    assert closed == [10, 2]


def test_an_async_generator(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """The same as a generator: items, sending, throwing, closing, failing."""

    @tracker.observe(name="ag")
    async def stream(to: int) -> AsyncGenerator[Any, Any]:
        for number in range(to):
            await asyncio.sleep(0)
            try:
                if sent := (yield number):
                    yield sent
            except KeyError:
                yield "caught"
        if to == 0:
            raise OSError("empty")

    async def main() -> None:
        assert [item async for item in stream(3)] == [0, 1, 2]
        steps = stream(3)
        assert await steps.__anext__() == 0
        assert await steps.asend("sent") == "sent"
        assert await steps.__anext__() == 1
        assert await steps.athrow(KeyError()) == "caught"
        await steps.aclose()
        with pytest.raises(OSError, match="empty"):
            await stream(0).__anext__()

    assert inspect.isasyncgenfunction(stream)
    asyncio.run(main())
    whole, closed, failed = recorded.calls
    assert (whole["items"], whole["result"]) == (3, [0, 1, 2])
    assert (closed["items"], closed["result"]) == (4, [0, "sent", 1, "caught"])
    assert "error" not in closed
    assert (failed["items"], failed["error"]) == (0, "empty")


def test_an_endless_generator_is_kept_within_bounds(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """All its items are counted, the first of them kept, and it fits into an event."""

    @tracker.observe()
    def stream() -> Generator[str, None, None]:
        for _ in range(20_000):
            yield "x" * 100

    assert sum(1 for _ in stream()) == 20_000
    (call,) = recorded.calls
    assert call["items"] == 20_000
    assert 100 < len(call["result"]) < 1000


def test_calls_nest(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """A call names the observed call that it was made in; a generator's consumer is not in it."""

    @tracker.observe(name="inner")
    async def inner(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @tracker.observe(name="leaf")
    def leaf() -> None:
        pass

    @tracker.observe(name="stream")
    def stream() -> Generator[None, None, None]:
        leaf()
        yield

    @tracker.observe(name="outer")
    async def outer() -> None:
        await asyncio.gather(inner(1), asyncio.create_task(inner(2)))
        for _ in stream():
            leaf()

    asyncio.run(outer())
    names = {call["call_id"]: call["name"] for call in recorded.calls}
    tree = [(c["name"], names.get(c.get("parent_call_id", "")), c["depth"]) for c in recorded.calls]
    assert tree == [
        ("inner", "outer", 1),
        ("inner", "outer", 1),
        ("leaf", "stream", 2),
        ("leaf", "outer", 1),
        ("stream", "outer", 1),
        ("outer", None, 0),
    ]


def test_an_agents_call_is_a_conversation(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """With an agent id and none current it starts one; what it calls is part of that."""

    @tracker.observe()
    def tool() -> str:
        return "found"

    @tracker.observe(agent_id="a")
    def agent(question: str) -> str:
        tracker.log_user_message(content=question)
        conversation = current_conversation()
        assert conversation is not None
        conversation.end(quality_score=5)
        return tool()

    @tracker.observe(agent_id="b")
    def failing() -> None:
        raise ValueError("no idea")

    agent("where?")
    with pytest.raises(ValueError, match="no idea"):
        failing()
    assert current_conversation() is None
    assert [event["type"] for event in recorded.events] == [
        "conversation.started",
        "message.logged",
        "function.observed",
        "function.observed",
        "conversation.ended",
        "conversation.started",
        "function.observed",
        "conversation.failed",
    ]
    assert [event["agent_id"] for event in recorded.events] == ["a"] * 5 + ["b"] * 3
    assert len({event["session_id"] for event in recorded.events}) == 2
    assert recorded.events[4]["data"]["quality_score"] == 5
    failed = recorded.events[-1]["data"]
    assert (failed["error_type"], failed["error_message"]) == ("ValueError", "no idea")


def test_a_call_in_a_conversation_belongs_to_it(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """It starts no other; an agent id given names whose doing it is."""

    @tracker.observe(agent_id="helper")
    def help_out() -> None:
        pass

    with tracker.conversation("a", user_id="u") as c:
        help_out()
        tracker.observe()(len)([1])
    calls = [event for event in recorded.events if event["type"] == "function.observed"]
    assert [(e["session_id"], e["agent_id"], e["user_id"]) for e in calls] == [
        (c.session_id, "helper", "u"),
        (c.session_id, "a", "u"),
    ]
    assert calls[1]["data"]["arguments"] == {"obj": [1]}


def test_a_generators_conversation_is_not_its_consumers(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Between its steps nothing is current; inside, the conversation goes on."""

    @tracker.observe(agent_id="a")
    def stream() -> Generator[str, None, None]:
        for _ in range(2):
            conversation = current_conversation()
            assert conversation is not None
            yield conversation.session_id

    seen = []
    for session_id in stream():
        seen.append(session_id)
        assert current_conversation() is None
    assert len(seen) == 2
    assert {event["session_id"] for event in recorded.events} == set(seen)
    assert recorded.events[-1]["type"] == "conversation.ended"


def test_input_and_output_may_be_left_out(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """For what must not be stored."""

    @tracker.observe(capture_input=False, capture_output=False)
    def secret(key: str) -> str:
        return key

    @tracker.observe(capture_output=False)
    def stream() -> Generator[str, None, None]:
        yield "secret"

    assert secret("k") == "k"
    assert list(stream()) == ["secret"]
    assert set(recorded.calls[0]) == {"name", "call_id", "depth", "duration_ms"}
    assert "result" not in recorded.calls[1]


def test_wrong_use_is_refused_where_it_stands(tracker: AgentPerformanceTracker) -> None:
    """At the decoration, not at a call; a wrong call raises the function's own TypeError."""
    with pytest.raises(ValidationError, match="agent_id: is of type int"):
        tracker.observe(agent_id=5)  # type: ignore[call-overload]  # that is the test
    wrongs: list[Any] = [int, "f"]
    for wrong in wrongs:
        with pytest.raises(ValidationError, match="give a function, method or property"):
            tracker.observe()(wrong)

    @tracker.observe()
    def function(a: int) -> int:
        return a

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        function()  # type: ignore[call-arg]  # that is the test
    assert tracker.observe()(functools.partial(function, 1))() == 1


def test_values_of_every_kind_do_no_harm(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Arguments and results that JSON cannot hold, that lie about themselves, or are huge."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = object.__hash__

    @tracker.observe()
    def same(value: Any) -> Any:
        return value

    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (Hostile(), cycle, "x" * 5_000_000, b"x" * 5_000_000, {1: {2}}, 10**10_000):
        assert same(value) is value
    assert len(recorded.calls) == 6
    assert recorded.calls[2]["result"].endswith("… (5,000,000 characters)")


def test_trouble_of_the_trackers_own_is_said_once(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The functions go on, of every kind, a thousand times; the log says it once."""
    tracker = AgentPerformanceTracker(config(), destination=RecordingDestination)

    @tracker.observe(agent_id="a")
    def plain() -> int:
        return 1

    @tracker.observe()
    def stream() -> Generator[int, None, None]:
        yield 1

    @tracker.observe()
    async def coroutine() -> int:
        return 1

    tracker.close()
    with caplog.at_level(logging.DEBUG, logger="tracker"):
        for _ in range(300):
            assert plain() == 1
            assert list(stream()) == [1]
        assert asyncio.run(coroutine()) == 1
    (said,) = [record.getMessage() for record in caplog.records if record.name == "tracker"]
    assert "plain was not recorded: this AgentPerformanceTracker was closed" in said
    with pytest.raises(RuntimeError, match="was closed"):
        tracker.log_user_message("s", "explicit calls raise as always")


def test_a_bug_in_the_tracker_does_no_harm(
    tracker: AgentPerformanceTracker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What nobody foresaw is logged with its traceback, once."""

    def bug(*_: object, **__: object) -> str:
        raise AttributeError("bug")

    monkeypatch.setattr(Client, "record", bug)
    observed = tracker.observe(name="f")(lambda: 1)
    assert [observed() for _ in range(10)] == [1] * 10
    (said,) = [record for record in caplog.records if record.name == "tracker"]
    assert said.getMessage().startswith("a call of f was not recorded: bug\nTraceback (most recent")
    assert said.getMessage().endswith("AttributeError: bug")


def test_every_kind_of_method_above_and_below(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Static and class methods and properties work as without, in either order."""

    class Agent:
        @tracker.observe
        @staticmethod
        def below(number: int) -> int:
            return number

        @staticmethod
        @tracker.observe
        def above(number: int) -> int:
            return number

        @tracker.observe()
        @classmethod
        def made(cls, number: int) -> int:
            return number

        @tracker.observe  # type: ignore[prop-decorator]  # mypy knows none above a property
        @property
        def inner(self) -> int:
            return 5

        @property
        @tracker.observe
        def outer(self) -> int:
            return 6

    agent: Any = Agent
    for owner in (agent, agent()):
        assert (owner.below(1), owner.above(2), owner.made(3)) == (1, 2, 3)
    assert (agent().inner, agent().outer) == (5, 6)
    results = [call["result"] for call in recorded.calls]
    assert results == [1, 2, 3, 1, 2, 3, 5, 6]
    assert [call["arguments"] for call in recorded.calls][:3] == [{"number": n} for n in (1, 2, 3)]


def test_objects_that_are_called(recorded: Recorded, tracker: AgentPerformanceTracker) -> None:
    """Whose `__call__` is a coroutine function or a generator; partial objects go by the name."""

    class Search:
        async def __call__(self, query: str) -> str:
            await asyncio.sleep(0)
            return f"found {query}"

    class Stream:
        def __call__(self, to: int) -> Iterator[int]:
            yield from range(to)

    observed: Any = tracker.observe(Search())
    assert inspect.iscoroutinefunction(observed)
    assert asyncio.run(observed("x")) == "found x"
    stream: Any = tracker.observe(Stream())
    assert inspect.isgeneratorfunction(stream)
    assert list(stream(2)) == [0, 1]
    assert tracker.observe(functools.partial(max, 1))(2) == 2
    assert [(c["name"].rpartition(".")[2], c["result"]) for c in recorded.calls] == [
        ("Search", "found x"),
        ("Stream", [0, 1]),
        ("max", 2),
    ]


def test_a_generator_belongs_to_where_it_was_made(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Whichever thread or task consumes it, with what it was called with, and with `bind` too."""

    @tracker.observe
    def look_up() -> None:
        pass

    @tracker.observe
    def stream(history: list[str]) -> Iterator[str]:
        look_up()
        yield "a"

    @tracker.observe
    async def stream_async(history: list[str]) -> AsyncGenerator[str, None]:
        await asyncio.sleep(0)
        look_up()
        yield "a"

    def plain() -> Iterator[str]:
        look_up()
        yield "a"

    async def plain_async() -> AsyncGenerator[str, None]:
        await asyncio.sleep(0)
        look_up()
        yield "a"

    async def consume(steps: Any) -> list[str]:
        return [item async for item in steps]

    history = ["question"]
    with tracker.conversation("a") as c:
        made = [stream(history), bind(plain)()]
        made_async = [stream_async(history), bind(plain_async)()]
    history.append("later")
    with ThreadPoolExecutor(1) as executor:
        assert [executor.submit(list, steps).result() for steps in made] == [["a"]] * 2
    assert [asyncio.run(consume(steps)) for steps in made_async] == [["a"]] * 2
    assert inspect.isgeneratorfunction(bind(plain))
    assert inspect.isasyncgenfunction(bind(plain_async))
    assert {event["session_id"] for event in recorded.events} == {c.session_id}
    arguments = [call["arguments"] for call in recorded.calls if "items" in call]
    assert arguments == [{"history": ["question"]}] * 2


def test_a_bound_coroutine_runs_in_the_context_where_it_was_bound(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """In another loop, with another conversation around it, cancelled and failing as before."""

    async def name() -> str:
        await asyncio.sleep(0)
        conversation = current_conversation()
        assert conversation is not None
        return conversation.agent_id

    async def endless() -> None:
        await asyncio.Event().wait()

    with tracker.conversation("a"):
        bound, bound_endless = bind(name), bind(endless)

    async def main() -> None:
        with tracker.conversation("b"):
            assert await bound() == "a"
            assert await name() == "b"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(bound_endless(), 0.01)

    asyncio.run(main())


def test_an_agents_state_can_be_copied(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Trackers, conversations and observed functions in it stay the same; pickling says why not."""

    @tracker.observe
    def stream() -> Iterator[int]:
        yield 1

    with tracker.conversation("a") as c, c.tool("t") as call:
        state = {"tracker": tracker, "conversation": c, "call": call, "stream": stream}
        for copied in (copy.deepcopy(state), copy.copy(state)):
            assert all(copied[name] is state[name] for name in state)
        assert list(copy.deepcopy(stream)()) == [1]
        for value in (tracker, c, call):
            with pytest.raises(TypeError, match=r"belongs to this process\. Send the APIConfig"):
                pickle.dumps(value)
        with pytest.raises(TypeError, match="cannot pickle an AgentPerformanceTracker:"):
            pickle.dumps(tracker)
        with pytest.raises(TypeError, match="cannot pickle a ToolCall:"):
            pickle.dumps(call)
    assert pickle.loads(pickle.dumps(tracker.config)) == tracker.config  # noqa: S301 - our own


def test_whatever_is_cut_off_is_marked(
    recorded: Recorded, tracker: AgentPerformanceTracker
) -> None:
    """Bytes, buffers, models and long representations; sets and deques are kept whole."""

    @dataclass
    class Model:
        text: str

    class Long:
        def __repr__(self) -> str:
            return "x" * 5_000

    @tracker.observe
    def see(**values: Any) -> None:
        pass

    words = {f"w{number}" for number in range(50)}
    see(
        image=b"a" * 5000,
        view=memoryview(b"a" * 5000),
        model=Model("y" * 30_000),
        words=words,
        long=Long(),
    )
    seen = recorded.calls[0]["arguments"]["values"]
    assert seen["image"].endswith("… (5,000 bytes)")
    assert seen["view"] == seen["image"]
    assert seen["model"] == {"text": "y" * 30_000}
    assert set(seen["words"]) == words
    assert seen["long"] == "x" * 1_000 + "… (5,000 characters)"
