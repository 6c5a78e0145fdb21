"""Whatever is logged arrives equal, or is refused at the call; there is nothing in between."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.collector import CollectorProcess, ForkedCollector
from tracker import AgentPerformanceTracker, APIConfig, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = (
    st.none() | st.booleans() | st.integers() | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=15,
)
WILD_TEXT = st.text(st.characters(exclude_categories=[]))
WILD_LEAVES = (
    LEAVES | st.floats() | st.binary(max_size=4) | WILD_TEXT | st.datetimes() | st.complex_numbers()
    | (st.integers(64, 14_200) | st.integers(14_300, 15_000)).map(lambda bits: 1 << bits)
    | st.sets(st.integers(), max_size=2)
)  # fmt: skip
WILD_KEYS = WILD_TEXT | st.integers() | st.none() | st.booleans() | st.floats() | st.binary()
WILD = st.recursive(
    WILD_LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(WILD_KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(QUICK, max_examples=400)


class Pair:
    """A tracker and the collector it delivers to; tells what became of a message."""

    def __init__(self, tracker: AgentPerformanceTracker, collector: CollectorProcess) -> None:
        self.tracker = tracker
        self.session = tracker.start_conversation("agent")
        self._collector = collector
        self._seen = 0

    def send(self, content: Any, metadata: Any) -> dict[str, Any] | None:
        """Log a message and return its data as the collector has it; None if it was refused."""
        before = self._events()
        try:
            event_id = self.tracker.log_user_message(self.session, content, metadata=metadata)
        except ValidationError:
            assert self._events() == before == [], "a refused event was stored"
            return None
        assert self.tracker.flush(20).pending == 0
        [event] = self._events()
        self._seen = event["id"]
        assert event["event_id"] == event_id
        data: dict[str, Any] = event["data"]
        return data

    def catch_up(self) -> None:
        """Skip what was delivered before."""
        self.tracker.flush(20)
        while events := self._events():
            self._seen = events[-1]["id"]

    def _events(self) -> list[dict[str, Any]]:
        found = self._collector.get("/v1/events", after=self._seen)["events"]
        return [event for event in found if event["type"] != "integrity.checkpoint"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("round-trip")
    with (
        ForkedCollector(folder) as collector,
        AgentPerformanceTracker(
            APIConfig(
                api_key=collector.api_key,
                client_id=collector.client_id,
                base_url=collector.url,
                outbox_path=folder / "outbox.sqlite3",
                durability="process",
                flush_interval=0,
                redaction="off",  # a key such as "password" would have its value masked
            )
        ) as tracker,
    ):
        made = Pair(tracker, collector)
        made.catch_up()
        yield made


def same(sent: Any, received: Any) -> bool:
    """Whether JSON gave back what went in: equal, of the same types, tuples having become lists."""
    if isinstance(sent, (list, tuple)):
        return (
            isinstance(received, list)
            and len(sent) == len(received)
            and all(map(same, sent, received))
        )
    if isinstance(sent, dict):
        return (
            isinstance(received, dict)
            and sent.keys() == received.keys()
            and all(same(value, received[key]) for key, value in sent.items())
        )
    return type(sent) is type(received) and bool(sent == received)


def check_json(pair: Pair, content: str, metadata: dict[str, Any]) -> None:
    data = pair.send(content, metadata)
    assert data is not None, "JSON that fits was refused"
    assert data["content"] == content
    assert same(metadata, data["metadata"])


def check_anything(pair: Pair, content: Any, metadata: Any) -> None:
    data = pair.send(content, metadata)
    if data is None:
        fits = isinstance(content, str) and isinstance(metadata, (dict, type(None)))
        assert not (fits and is_json(content) and is_json(metadata)), "JSON that fits was refused"
        return
    assert data["content"] == content
    assert same(metadata, data.get("metadata"))


def is_json(value: Any) -> bool:
    """Whether the standard library can carry `value` there and back through UTF-8, unchanged."""
    try:
        return same(value, json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False)
                                      .encode()))  # fmt: skip
    except (TypeError, ValueError, RecursionError):
        return False


@QUICK
@given(content=TEXT, metadata=st.dictionaries(TEXT, JSON, max_size=5))
@example(content="", metadata={})
@example(content="\0\u2028\U0010ffff\ufeff", metadata={"": {"": [[], {}, ""]}})
@example(content="e\u0301 é", metadata={"é": 1, "e\u0301": 2})
@example(content="x", metadata={"n": [2**53 + 1, -(2**64), 10**400, 1e16, 5e-324, 1.7e308, 0.1]})
@example(content="x", metadata={"z": [1, 1.0, True, None, "1"]})
def test_json_comes_back_equal(pair: Pair, content: str, metadata: dict[str, Any]) -> None:
    """Any JSON metadata and any text that UTF-8 can hold arrive as they were."""
    check_json(pair, content, metadata)


@QUICK
@given(
    content=WILD_TEXT | WILD_LEAVES,
    metadata=st.none() | st.dictionaries(WILD_KEYS, WILD, max_size=3) | WILD,
)
@example(content="x", metadata={"a": math.nan})
@example(content="\udfff", metadata=None)
@example(content="x", metadata={"\ud800": 1})
@example(content="x", metadata={"n": 10**4300})
@example(content="x", metadata={"n": -(10**4297)})
@example(content="x", metadata={1: 1, "1": 2})
@example(content="x", metadata={True: 1})
@example(content="x", metadata={"t": (1, (2,))})
@example(content="x", metadata={"z": -0.0})
def test_anything_comes_back_equal_or_is_refused(pair: Pair, content: Any, metadata: Any) -> None:
    """Values that are not JSON never arrive as something else."""
    check_anything(pair, content, metadata)


@pytest.mark.slow
@pytest.mark.timeout(900)
@LONG
@given(content=TEXT, metadata=st.dictionaries(TEXT, JSON, max_size=8))
def test_json_comes_back_equal_long(pair: Pair, content: str, metadata: dict[str, Any]) -> None:
    """As above, for many more values."""
    check_json(pair, content, metadata)


@pytest.mark.slow
@pytest.mark.timeout(900)
@LONG
@given(content=WILD_TEXT | WILD_LEAVES, metadata=st.dictionaries(WILD_KEYS, WILD, max_size=5))
def test_anything_comes_back_equal_or_is_refused_long(
    pair: Pair, content: Any, metadata: Any
) -> None:
    """As above, for many more values."""
    check_anything(pair, content, metadata)
