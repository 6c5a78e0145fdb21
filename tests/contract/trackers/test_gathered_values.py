"""What the SDK gathers by itself: any value at all, and the application's own call goes on."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import logging
import pathlib
import sqlite3
import sys
import threading
import types
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker import (
    APIConfig,
    AsyncAgentPerformanceTracker,
    Tracker,
    TrackerHandler,
    ValidationError,
)
from tracker.context import bind
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

MAX_EVENT_BYTES = 20_000


class PanicException(BaseException):
    """As pyo3 names a panic in Rust."""


class Hostile:
    """Raises whatever is asked of it, its class included."""

    fault: type[BaseException] = RuntimeError

    def _raise(self, *_: object) -> Any:
        raise object.__getattribute__(self, "fault")

    __getattribute__ = __getattr__ = __repr__ = __str__ = __len__ = __iter__ = _raise
    __eq__ = __bool__ = __getitem__ = __contains__ = __index__ = _raise
    __hash__ = object.__hash__


class Panics(Hostile):
    fault = PanicException


class Shallow(Hostile):
    fault = RecursionError


class Liar:
    """Answers with values of the wrong type, and says that it is a dict."""

    @property
    def __class__(self) -> Any:
        return dict

    @__class__.setter
    def __class__(self, value: object) -> None:
        raise NotImplementedError

    def __repr__(self) -> Any:
        return 5

    __str__ = __repr__


class HostileDict(dict[Any, Any]):
    __len__ = __iter__ = items = keys = values = __eq__ = Hostile._raise
    fault = KeyError


class HostileList(list[Any]):
    __len__ = __iter__ = __getitem__ = __eq__ = Hostile._raise
    fault = ZeroDivisionError


class HostileMapping(collections.UserDict[Any, Any]):
    def __getitem__(self, key: object) -> Any:
        raise OSError


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Box:
    value: Any
    hidden: str = dataclasses.field(default="kept out of repr", repr=False)


class Colour(enum.Enum):
    RED = "red"


class MuteError(Exception):
    __str__ = __repr__ = Hostile._raise
    fault = RuntimeError


def generator() -> Iterator[int]:
    yield from (pytest.fail("somebody consumed it") for _ in range(1))


def cycle() -> list[Any]:
    made: list[Any] = []
    made += [made, {"me": made}]
    return made


def deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(5_000):
        made = [made]
    return made


MAKERS: dict[str, Callable[[], Any]] = {
    "large": lambda: 2**70, "huge": lambda: 10**5000, "nan": lambda: float("nan"),
    "surrogate": lambda: "\ud800x", "long": lambda: "x" * 100_000, "nul": lambda: "\0" * 50_000,
    "bytes": lambda: b"x" * 100_000, "bytearray": lambda: bytearray(b"y" * 300),
    "memoryview": lambda: memoryview(b"abc" * 200), "decimal": lambda: decimal.Decimal("0.1"),
    "enum": lambda: Colour.RED, "uuid": lambda: uuid.UUID(int=7),
    "datetime": lambda: datetime.datetime(2026, 3, 2), "path": lambda: pathlib.PurePosixPath("/x"),
    "proxy": lambda: types.MappingProxyType({1: {2}}), "lock": threading.Lock,
    "function": lambda: len, "class": lambda: Hostile, "ellipsis": lambda: ...,
    "hostile": Hostile, "panics": Panics, "recursion": Shallow, "liar": Liar,
    "hostile dict": lambda: HostileDict(a=1), "hostile list": lambda: HostileList([1]),
    "mapping": lambda: HostileMapping(a=1), "generator": generator, "cycle": cycle, "deep": deep,
    "exception": MuteError, "counter": lambda: collections.Counter("abc"),
    "many": lambda: list(range(30_000)), "mock": lambda: mock.MagicMock(spec=dict),
}  # fmt: skip
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "pair": lambda parts: Pair(parts[:1], parts[1:]),
    "box": Box,
    "by number": lambda parts: dict(enumerate(parts)),
    "by type": lambda parts: {1: parts, "1": parts, None: parts, "None": parts, "…": parts},
    "by hostile": lambda parts: {Hostile(): part for part in parts},
    "user dict": lambda parts: collections.UserDict(a=parts),
}


class Recipe(NamedTuple):
    """How to make a value: Hypothesis looks at what it draws, which hostile values do not allow."""

    kind: str
    parts: Any

    def make(self) -> Any:
        if self.kind == "plain":
            return self.parts
        if self.kind in CONTAINERS:
            return CONTAINERS[self.kind]([part.make() for part in self.parts])
        return MAKERS[self.kind]()


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
RECIPES: st.SearchStrategy[Recipe] = st.recursive(
    st.builds(Recipe, st.just("plain"), PLAIN)
    | st.builds(Recipe, st.sampled_from(sorted(MAKERS)), st.none()),
    lambda inner: st.builds(
        Recipe, st.sampled_from(sorted(CONTAINERS)), st.lists(inner, max_size=4)
    ),
    max_leaves=8,
)
TWO = {"first": RECIPES, "second": RECIPES}
FIVE = st.lists(RECIPES, min_size=5, max_size=5)


class Stored:
    """A tracker, and the events that it stored since somebody last looked."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.config = APIConfig(
            api_key="k",
            client_id="c",
            outbox_path=folder / "outbox.sqlite3",
            durability="process",
            max_event_bytes=MAX_EVENT_BYTES,
        )
        self.everything = Tracker(self.config, destination=RecordingDestination)
        self.tracker = self.everything.performance
        self._seen = 0
        self._reader = sqlite3.connect(self.config.outbox_path)

    def new(self) -> list[dict[str, Any]]:
        rows = self._reader.execute(
            "SELECT seq, type, data FROM events WHERE seq > ? AND type != 'integrity.checkpoint' "
            "ORDER BY seq",
            (self._seen,),
        ).fetchall()
        self._seen = rows[-1][0] if rows else self._seen
        for _, _, data in rows:
            assert len(data.encode()) <= MAX_EVENT_BYTES
        return [
            {"type": type_, **json.loads(data, parse_constant=_refuse)} for _, type_, data in rows
        ]

    def close(self) -> None:
        self._reader.close()
        self.everything.close()


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    opened = Stored(tmp_path_factory.mktemp("gathered"))
    yield opened
    opened.close()


@given(recipe=RECIPES)
def test_an_observed_call_returns_and_raises_what_it_did(stored: Stored, recipe: Recipe) -> None:
    """Plain, by `bind`, failing and as a generator: one event for each."""
    value = recipe.make()
    observe = stored.tracker.observe

    @observe
    def same(given: Any) -> Any:
        return given

    @observe
    def fail(given: Any) -> Any:
        raise MuteError(given)

    @observe
    def stream(given: Any) -> Iterator[Any]:
        yield given

    stored.new()
    assert same(value) is value
    assert bind(same)(given=value) is value
    with pytest.raises(MuteError) as caught:
        fail(value)
    assert caught.value.args[0] is value
    (item,) = list(stream(value))
    assert item is value
    events = stored.new()
    assert [event["type"] for event in events] == ["function.observed"] * 4
    assert all("given" in event["arguments"] for event in events)
    assert events[2]["error_type"] == "MuteError"


@given(**TWO)
def test_a_tool_block_is_logged_whatever_was_set_in_it(
    stored: Stored, first: Recipe, second: Recipe
) -> None:
    """And the exception that leaves it is its own."""
    value, error = first.make(), second.make()
    with stored.tracker.conversation("a") as c:
        stored.new()
        with c.tool("t", {"q": 1}) as call:
            call.result = value
            call.error = error
            call.call_id = error
        mine = MuteError()
        call = c.tool("t")
        with pytest.raises(MuteError) as caught, call:  # noqa: PT012 - what leaves the block
            call.result = value
            raise mine
        assert caught.value is mine
        done, failed = stored.new()
    assert done["type"] == failed["type"] == "tool.called"
    assert done["arguments"] == {"q": 1}
    assert failed["error"].startswith("MuteError: ")
    ended = stored.new()
    assert [event["type"] for event in ended] == ["conversation.ended"]


@given(**TWO)
def test_a_log_record_is_stored_whatever_it_carries(
    stored: Stored, first: Recipe, second: Recipe
) -> None:
    """In the message, its arguments, the ids, the exception's tuple, and what else is given."""
    value, user_id = first.make(), second.make()
    handler = TrackerHandler(stored.tracker)
    stored.new()
    fields = {"order": "order 9", "value": value, "user_id": user_id, "session_id": user_id}
    for record in (
        {"msg": value, **fields},
        {"msg": "%d", "args": (value,), **fields},
        {"msg": "m", "exc_info": (MuteError, MuteError(), None), "exc_text": None, **fields},
        {"msg": "m", "exc_info": value, **fields},
        {"msg": "m", "exc_text": value, "levelname": value, **fields},
    ):
        handler.handle(logging.makeLogRecord(record))
    events = stored.new()
    assert [event["type"] for event in events] == ["log.recorded"] * 5
    assert all("order" in event["extra"] for event in events)


@given(recipes=FIVE)
def test_the_async_twins_do_the_same(stored: Stored, recipes: list[Recipe]) -> None:
    """Coroutines, async generators and async tool blocks."""
    one, two, three, four, five = (recipe.make() for recipe in recipes)

    async def main() -> None:
        tracker = AsyncAgentPerformanceTracker(stored.config)

        @tracker.observe
        async def same(given: Any) -> Any:
            return given

        @tracker.observe
        async def stream(given: Any) -> AsyncIterator[Any]:
            yield given

        @tracker.observe
        async def fail(given: Any) -> Any:
            raise MuteError(given)

        async with tracker:
            assert await same(one) is one
            assert await anext(bind(stream)(two).__aiter__()) is two
            with pytest.raises(MuteError) as caught:
                await fail(three)
            assert caught.value.args[0] is three
            async with tracker.conversation("a") as c, c.tool("t") as call:
                call.result, call.error = four, five

    stored.new()
    asyncio.run(main())
    assert [event["type"] for event in stored.new()] == [
        *["function.observed"] * 3,
        "conversation.started",
        "tool.called",
        "conversation.ended",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("test", "drawn"),
    [
        (test_an_observed_call_returns_and_raises_what_it_did, {"recipe": RECIPES}),
        (test_a_tool_block_is_logged_whatever_was_set_in_it, TWO),
        (test_a_log_record_is_stored_whatever_it_carries, TWO),
        (test_the_async_twins_do_the_same, {"recipes": FIVE}),
    ],
)
def test_it_holds_for_many_more_values(
    stored: Stored, test: Any, drawn: dict[str, st.SearchStrategy[Any]]
) -> None:
    """Each of the tests above, with many more examples."""
    settings(max_examples=400)(given(**drawn)(test.hypothesis.inner_test))(stored)


def test_one_bad_value_costs_only_itself(stored: Stored) -> None:
    """What stands around it is kept; in a tool's result a marker takes its place."""
    stored.new()
    with stored.tracker.conversation("a") as c, c.tool("calendar", {"day": "Monday"}) as call:
        call.result = {
            "from": datetime.datetime(2026, 3, 2),
            "deep": [Hostile(), Box({1, 2}), 10**5000],
            "rest": "x" * 5000,
        }
    (found,) = [event for event in stored.new() if event["type"] == "tool.called"]
    assert found["result"] == {
        "from": "[not JSON: datetime]",
        "deep": ["[not JSON: Hostile]", {"value": [1, 2]}, "[not JSON: int of 16,610 bits]"],
        "rest": "x" * 5000,
    }


class Interrupting:
    def __call__(self) -> Interrupting:
        return self

    def __repr__(self) -> str:
        raise KeyboardInterrupt


def test_an_interruption_passes_through_and_the_call_is_recorded(stored: Stored) -> None:
    """Ctrl-C while a result is being read is nobody's value: the program must end."""
    observed = stored.tracker.observe(name="f", capture_input=False)(Interrupting.__call__)

    stored.new()
    with pytest.raises(KeyboardInterrupt):
        observed(Interrupting())
    (event,) = stored.new()
    assert (event["name"], "result" in event) == ("f", False)


class Closing:
    def __repr__(self) -> str:
        raise GeneratorExit


def test_a_value_that_raises_generator_exit_costs_only_itself(stored: Stored) -> None:
    """That unwinds no program: the result is the application's, and the call is recorded."""
    value = Closing()
    observed = stored.tracker.observe(name="f", capture_input=False)(lambda: value)

    stored.new()
    assert observed() is value
    (event,) = stored.new()
    assert event["name"] == "f"


def test_direct_arguments_that_change_meanwhile_raise_nothing_else(stored: Stored) -> None:
    """Another thread adds to a dict while it is logged: stored, or ValidationError."""
    shared: dict[str, Any] = {str(n): {"n": n} for n in range(200)}
    calls = 40
    stop = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            shared[f"new {n % 50}"] = n
            shared.pop(f"new {(n - 25) % 50}", None)

    thread = threading.Thread(target=churn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that it comes between often
    thread.start()
    stored.new()
    try:
        for _ in range(calls):
            stored.tracker.track("a.b", shared)
            with (
                stored.tracker.conversation("a", metadata=shared) as c,
                c.tool("t", shared) as call,
            ):
                call.result = shared
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert len(stored.new()) == calls * 4


def test_direct_arguments_that_cannot_be_read_are_refused(stored: Stored) -> None:
    """Always with `ValidationError`, and nothing is stored."""
    stored.new()
    hostile: list[Any] = [Hostile(), Liar(), {"a": HostileMapping(a=1)}, {"a": [Hostile()]}]
    for value in hostile:
        refused(stored, value)
    assert stored.new() == []


def refused(stored: Stored, value: Any) -> None:
    direct: list[Callable[[], str]] = [
        lambda: stored.tracker.track("a.b", value),
        lambda: stored.tracker.log_user_message("s", value),
        lambda: stored.tracker.log_tool_call("s", "t", value),
    ]
    for log in direct:
        with pytest.raises(ValidationError):
            log()
