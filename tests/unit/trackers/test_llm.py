"""Usage and cost of language models: what is refused, what is priced, and how it is summed."""

from __future__ import annotations

import json
import logging
import math
import socket
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from tracker import LLMTracker, LLMUsage, ValidationError
from tracker.outbox.schema import tables
from tracker.queries import usage
from tracker.queries.filters import Filters
from tracker.testing import RecordingDestination
from tracker.trackers import llm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig

    Record = Callable[..., dict[str, Any]]

TOKENS = st.one_of(st.integers(0, 5_000), st.integers(0, 5 * 10**11))  # two make what is allowed
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Forget whether the price list is installed, and what was said of it."""
    yield
    llm.price_list.cache_clear()
    llm.logged.forget()


@pytest.fixture
def record(config: MakeConfig) -> Record:
    """Record one usage and return its event's data, as it was delivered."""

    def record(*arguments: Any, **more: Any) -> dict[str, Any]:
        destination = RecordingDestination()
        with LLMTracker(config(), destination=lambda: destination) as tracker:
            tracker.record_usage(*arguments, **more)
            tracker.flush()
        data = destination.events[-1]["data"]
        assert isinstance(data, dict)
        return data

    return record


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("", "m", 1, 1), {}, "^provider: is empty"),
        (("p", None, 1, 1), {}, "^model: is None"),
        (("p", "m", -1, 1), {}, "^prompt_tokens: is out of range"),
        (("p", "m", 1, 1.5), {}, "^completion_tokens: is of type float"),
        (("p", "m", True, 1), {}, "^prompt_tokens: is of type bool"),
        (("p", "m", 10**12, 1), {}, r"^prompt_tokens \+ completion_tokens: is out of range"),
        (("p", "m", 1, 1), {"cached_tokens": "3"}, "^cached_tokens: is of type str"),
        (("p", "m", 1, 1), {"latency_ms": -0.1}, "^latency_ms: is -0.1"),
        (("p", "m", 1, 1), {"time_to_first_token_ms": math.nan}, "^time_to_first_token_ms: is nan"),
        (
            ("p", "m", 1, 1),
            {"cost_usd": -0.01},
            "^cost_usd: is -0.01; give US dollars, from 0 to 1,000",
        ),
        (("p", "m", 1, 1), {"cost_usd": math.inf}, "^cost_usd: is inf"),
        (("p", "m", 1, 1), {"metadata": [1]}, "^metadata: is of type list"),
        (("p", "m", 1, 1), {"session_id": ""}, "^session_id: is empty"),
        (("p", "m", 1, 1), {"agent_id": 7}, "^agent_id: is of type int"),
    ],
)
def test_wrong_arguments_are_refused(
    config: MakeConfig, arguments: tuple[Any, ...], more: dict[str, Any], message: str
) -> None:
    """Each argument is checked before anything is stored."""
    with LLMTracker(config(), destination=RecordingDestination) as tracker:
        with pytest.raises(ValidationError, match=message):
            tracker.record_usage(*arguments, **more)
        assert tracker.get_usage() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "provider"}, "^by: is 'provider'; give one of 'model', 'agent', 'session', 'day'"),
        ({"since": datetime(2026, 1, 1)}, "^since: is a datetime without a time zone; give an aw"),
        ({"since": 1.5}, "^since: is of type float; give an aware datetime, or Unix milliseconds"),
        ({"since": True}, "^since: is of type bool"),
        ({"since": -1}, "^since: is out of range"),
        ({"since": datetime(2026, 1, 1).date()}, "^since: is of type date"),
    ],
)
def test_a_read_refuses_what_it_does_not_know(
    config: MakeConfig, arguments: dict[str, Any], message: str
) -> None:
    """`by` is one of four words, and `since` a point in time."""
    with (
        LLMTracker(config(), destination=RecordingDestination) as tracker,
        pytest.raises(ValidationError, match=message),
    ):
        tracker.get_usage(**arguments)


def test_every_field_is_stored(record: Record) -> None:
    """The event holds what was given, times with 2 decimals, and the total of tokens."""
    assert record(
        "openai", "gpt-4o", 900, 120, latency_ms=812.345, time_to_first_token_ms=90,
        cached_tokens=512, cost_usd=0.25, metadata={"try": 2},
    ) == {
        "provider": "openai", "model": "gpt-4o", "prompt_tokens": 900, "completion_tokens": 120,
        "total_tokens": 1020, "latency_ms": 812.35, "time_to_first_token_ms": 90.0,
        "cached_tokens": 512, "cost_usd": 0.25, "metadata": {"try": 2},
    }  # fmt: skip


def test_cost_is_computed_from_the_price_list(record: Record) -> None:
    """Without a cost it is computed, cached tokens at their own price, and names the list."""
    import genai_prices

    version = f"genai-prices {genai_prices.__version__}"
    full = record("openai", "gpt-4o", 1_000_000, 100_000)
    cached = record("openai", "gpt-4o", 1_000_000, 100_000, cached_tokens=400_000)
    assert (full["cost_usd"], full["price_data"]) == (3.5, version)
    assert (cached["cost_usd"], cached["price_data"]) == (3.0, version)


@pytest.mark.parametrize("cost", [0, 0.5])
def test_a_cost_that_is_given_stands(record: Record, cost: float) -> None:
    """The caller's own figure is not second-guessed, and no price list is named for it."""
    data = record("openai", "gpt-4o", 1000, 100, cost_usd=cost)
    assert data["cost_usd"] == cost
    assert "price_data" not in data


@pytest.mark.parametrize(
    ("provider", "model", "prompt", "completion", "cached"),
    [
        ("openai", "no-such-model", 1000, 100, None),
        ("no-such-provider", "gpt-4o", 1000, 100, None),
        ("cerebras", "qwen-3-coder-480b", 1000, 100, None),  # known, without a price
        ("cerebras", "qwen-3-coder-480b", 1000, 0, None),
        ("openai", "text-embedding-3-small", 0, 100, None),  # known, without a price for output
    ],
)
def test_a_cost_that_is_not_known_is_left_out(
    record: Record, provider: str, model: str, prompt: int, completion: int, cached: int | None
) -> None:
    """What the price list cannot tell has no cost at all: never 0, and no error."""
    data = record(provider, model, prompt, completion, cached_tokens=cached)
    assert "cost_usd" not in data
    assert "price_data" not in data


def test_an_updated_price_list_says_since_when(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the application lets the list update itself, the version tells the update's time."""
    import genai_prices
    from genai_prices import data_snapshot

    updated = data_snapshot.DataSnapshot(
        data_snapshot.get_snapshot().providers,
        from_auto_update=True,
        timestamp=datetime(2026, 11, 1, 13, tzinfo=timezone(timedelta(hours=1))),
    )
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", updated)
    data = record("openai", "gpt-4o", 1000, 100)
    assert data["price_data"] == (
        f"genai-prices {genai_prices.__version__}, updated 2026-11-01T12:00:00Z"
    )


def test_without_the_extra_there_is_no_cost(
    record: Record, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without genai-prices the event is stored all the same, in silence."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    llm.price_list.cache_clear()
    with caplog.at_level(logging.INFO, logger="tracker"):
        assert "cost_usd" not in record("openai", "gpt-4o", 1000, 100)
    assert caplog.records == []


def test_pricing_asks_no_network(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The price list is the installed one; no socket is opened for it."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in [name for name in sys.modules if name.partition(".")[0] == "genai_prices"]:
        monkeypatch.delitem(sys.modules, name)
    llm.price_list.cache_clear()
    assert record("openai", "gpt-4o", 1000, 100)["cost_usd"] == 0.0035


def test_a_fault_in_the_price_list_costs_no_event(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the package breaks, the event is stored without a cost, and it is said once."""

    def fail(*_: Any, **__: Any) -> Any:
        raise AttributeError("moved")

    monkeypatch.setattr("genai_prices.calc_price", fail)
    with (
        caplog.at_level(logging.WARNING, logger="tracker"),
        LLMTracker(config(), destination=RecordingDestination) as tracker,
    ):
        for _ in range(3):
            tracker.record_usage("openai", "gpt-4o", 1000, 100)
        assert tracker.get_usage() == [LLMUsage("gpt-4o", 3, 3000, 300, 3300, 0, None, 3)]
    assert [record.getMessage() for record in caplog.records] == [
        "genai-prices failed (AttributeError('moved')); events are logged without the cost"
    ]


def test_usage_leaves_out_what_was_erased_or_damaged() -> None:
    """An erased event has no figures left; a damaged one does not spoil the others'."""
    rows = [
        row(1, json.dumps(fields(prompt_tokens=3, completion_tokens=4))),
        row(2, '{"erased":true}'),
        row(3, '{"prompt_tokens":'),
        row(4, json.dumps(fields(prompt_tokens=1, completion_tokens=1)), type="free.event"),
    ]
    assert read(rows, "model", None) == [LLMUsage("m", 1, 3, 4, 7, 0, None, 1)]


@given(
    used=st.lists(
        st.tuples(
            st.sampled_from(["m1", "m2", "m3"]),
            st.sampled_from(["agent-1", "agent-2", None]),
            st.sampled_from(["s1", "s2", None]),
            st.integers(0, 3 * DAY_MS),
            TOKENS,
            TOKENS,
            st.none() | TOKENS,
            st.none() | st.floats(0, 1_000_000),
        ),
        max_size=30,
    ),
    by=st.sampled_from(usage.BY),
    since_ms=st.none() | st.integers(0, 3 * DAY_MS),
)
def test_usage_is_the_sum_of_the_raw_events(
    used: list[tuple[Any, ...]], by: str, since_ms: int | None
) -> None:
    """Each figure equals the same figure computed in plain Python, however large."""
    rows, groups = [], defaultdict(list)
    for seq, (model, agent, session, at_ms, prompt, completion, cached, cost) in enumerate(used, 1):
        data = fields(model=model, prompt_tokens=prompt, completion_tokens=completion)
        data.update({"cached_tokens": cached} if cached is not None else {})
        data.update({"cost_usd": cost} if cost is not None else {})
        rows.append(row(seq, json.dumps(data), at_ms=at_ms, agent=agent, session=session))
        if since_ms is None or at_ms >= since_ms:
            day = datetime.fromtimestamp(at_ms / 1000, timezone.utc).date().isoformat()
            key = {"model": model, "agent": agent, "session": session, "day": day}[by]
            groups[key].append(data)
    found = read(rows, by, since_ms)
    assert {one.key for one in found} == set(groups)
    assert len(found) == len(groups)
    for one in found:
        raw = groups[one.key]
        costs = [data["cost_usd"] for data in raw if "cost_usd" in data]
        assert (one.calls, one.unpriced) == (len(raw), len(raw) - len(costs))
        for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"):
            assert getattr(one, name) == sum(data.get(name, 0) for data in raw)
        if one.cost_usd is None:
            assert costs == []
        else:
            assert one.cost_usd == pytest.approx(math.fsum(costs))
            assert costs
    order = [one.key if by == "day" else -one.total_tokens for one in found]
    assert order == sorted(order)  # type: ignore[type-var]  # all of one kind


def fields(model: str = "m", **counts: int) -> dict[str, Any]:
    return {"model": model, "total_tokens": sum(counts.values()), **counts}


def row(
    seq: int,
    data: str,
    *,
    type: str = "llm.used",
    at_ms: int = 0,
    agent: str | None = None,
    session: str | None = None,
) -> dict[str, Any]:
    return {
        "seq": seq, "event_id": str(seq), "type": type, "timestamp_ms": at_ms, "agent_id": agent,
        "session_id": session, "digest": "", "chain": "", "data": data,
    }  # fmt: skip


def read(rows: list[dict[str, Any]], by: str, since_ms: int | None) -> list[LLMUsage]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        tables.metadata.create_all(connection)
        if rows:
            connection.execute(tables.events.insert(), rows)
        found = usage.usage(connection, by, Filters(since_ms))
    engine.dispose()
    return found
