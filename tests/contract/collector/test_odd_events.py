"""No event that the collector takes is one that PostgreSQL cannot read or roll up.

One that its JSON or its numbers refused would stop the roll-ups of all clients.
"""

from __future__ import annotations

import json
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.collector import EventChain
from tests.support.forwarding import store_events
from tests.support.rolled import exact_conversations, paged_conversations
from tracker.collector.batch import parse_batch
from tracker.collector.refusal import RefusedError
from tracker.collector.rollups.conversations import look
from tracker.collector.rollups.coverage import covered
from tracker.collector.rollups.reads import reads_of
from tracker.collector.rollups.roller import Roller
from tracker.collector.store import Store
from tracker.queries import agents, history, scores, search, traces
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.metrics import DAY, HOUR
from tracker.queries.reads import Reads
from tracker.queries.source import portions
from tracker.queries.usage import BY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tests.support.postgresql import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAST_MS = 2**63 - 1
DAY_MS = 86_400_000
TIMES = (
    -LAST_MS,
    -DAY_MS,
    -1,
    0,
    1_790_000_000_000,
    253_402_300_800_000,
    LAST_MS - DAY_MS,
    LAST_MS,
)
NUMBERS = (
    *(0, -0.0, 1, -1, 0.1, 5e-324, -5e-324, 1e-300, 1.5, 5, 2**31, 2**53 + 1, 2**63, -(2**63)),
    *(10**400, -(10**4_000), 10**4_299, 1e308, 1.7976931348623157e308, -1.7976931348623157e308),
)
TEXTS = (
    *("", "x", "\0", "\\", "\\\0", "\\\\\0\\", "\\u0000", "\\ud800", '"', "\n\x01\x1f\x7f"),
    *("\u2028", "\ufffe\uffff", "\U0010ffff", "x" * 5_000, "\0" * 1_100, "failed", "1e999", "NaN"),
)
NAMES = (
    "tokens_used", "response_time_ms", "quality_score", "outcome", "model", "name", "value",
    "score", "cost_usd", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens",
    "cache_write_tokens", "erased", "status", "activity", "version", "duration_ms", "role",
    "content", "run_id", "attributes", "event_ids", "", "\0", "a\\\0", "x" * 300,
)  # fmt: skip
TYPES = (
    "conversation.started", "conversation.resumed", "conversation.ended", "conversation.failed",
    "message.logged", "tool.called", "llm.used", "score.recorded", "feedback.recorded",
    "agent.registered", "agent.status_changed", "agent.activity", "agent.heartbeat", "otel.span",
    "otel.log", "cart.abandoned", "compliance.erased",
)  # fmt: skip
rng = random.Random(16)  # noqa: S311 - not secrets
LONG_ID = "".join(chr(rng.randrange(0x20000, 0x2FFFF)) for _ in range(256))
"""As long as an id may be, and nothing that a database can make smaller."""
IDS = ("a", "\x01", "'; --", LONG_ID, None)


@pytest.fixture(scope="module")
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    found = Store(postgres_server.new_database())
    yield found
    found.close()


NOTHING: list[Any] = [None, True, False]
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.sampled_from(NOTHING),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    ),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    found = {
        "data": draw(OBJECTS),
        "type": draw(st.sampled_from(TYPES)),
        "timestamp_ms": draw(st.sampled_from(TIMES)),
        **{name: draw(st.sampled_from(IDS)) for name in ("agent_id", "session_id", "user_id")},
    }
    if draw(st.booleans()):
        tags = draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2))
        found["context"] = {**draw(OBJECTS), "environment": draw(VALUES), "tags": tags}
    return found


@given(given_=st.lists(fields(), min_size=5, max_size=40))
@settings(
    max_examples=8,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_stored_is_read_and_rolled_up(
    store: Store, given_: list[dict[str, Any]]
) -> None:
    see(store, given_)


def test_each_extreme_in_each_field_is_read_and_rolled_up(store: Store) -> None:
    """Each number and text as each figure of each type, at some time."""
    values: list[Any] = [*NUMBERS, *TEXTS, *NOTHING, [], {}, [[]], {"\0": "\0"}]
    given_: list[dict[str, Any]] = [
        {
            "type": type_,
            "timestamp_ms": TIMES[number % len(TIMES)],
            "agent_id": IDS[number % len(IDS)],
            "session_id": f"s-{number}",
            "data": dict.fromkeys(NAMES, value),
            "context": {"environment": value, "release": value, "tags": {"site": value}},
        }
        for number, value in enumerate(values)
        for type_ in TYPES
    ]
    see(store, given_)


def test_the_deepest_data_that_is_taken_is_read_and_rolled_up(store: Store) -> None:
    """PostgreSQL takes what is nested some 15,000 levels deep, and a tenth of it if set so."""
    deepest = max(depth for depth in (100, 500, 850, 899, 950, 5_000, 20_000) if is_taken(depth))
    assert 500 <= deepest < 950
    levels: Any = 1
    for _ in range(deepest):
        levels = [levels]
    see(store, [{"data": {"outcome": "failed", "x": levels}, "type": type_} for type_ in TYPES])


def is_taken(depth: int) -> bool:
    """Return whether the collector takes data that is so deep."""
    chain = EventChain()
    body = json.dumps(chain.batch([chain.event({"x": 12345})])).replace(
        "12345", "[" * depth + "]" * depth
    )
    try:
        (rejected,) = parse_batch(body.encode(), "test-client").rejected
    except RefusedError:
        return False
    return rejected.code == "digest_mismatch"  # all but the digest, which is of another value


def see(store: Store, given_: Sequence[dict[str, Any]]) -> None:
    """Store events, roll them up, erase them, and read them at each stage."""
    client_id, chain = f"client-{uuid.uuid4()}", EventChain()
    events = [chain.event(**each) for each in given_]
    for some in portions(events, 400):
        store_events(store, chain, some, client_id)
    roller = Roller(store, 1_000)
    for _ in range(2):
        read(store, client_id)
        roll(roller)
        read(store, client_id)
        erasure = {"event_ids": [event["event_id"] for event in events]}
        store_events(store, chain, [chain.event(erasure, type="compliance.erased")], client_id)
    roll(roller)
    with store.reading() as connection:
        assert covered(connection, client_id, EVERYTHING) is not None
        assert look(connection, client_id, EVERYTHING, None) is not None


def roll(roller: Roller) -> None:
    while roller.step() is not None:
        pass


def read(store: Store, client_id: str) -> None:
    """Read all that there is, and see that roll-ups say the same of usage and conversations."""
    rolled = reads_of(client_id)
    exact = Reads(rolled.events)
    with store.reading() as connection:
        for step in (DAY, HOUR):
            assert (exact.metrics(connection, EVERYTHING, step).messages
                    == rolled.metrics(connection, EVERYTHING, step).messages)  # fmt: skip
        for by in BY:
            assert exact.usage(connection, by, EVERYTHING) == rolled.usage(
                connection, by, EVERYTHING
            )
        for name in ("agents", "overview"):
            assert getattr(exact, name)(connection, EVERYTHING) == getattr(rolled, name)(
                connection, EVERYTHING
            )
        read_the_rest(connection, client_id)
    for wanted in (EVERYTHING, Filters(environment="x"), Filters(tags=(("site", "x"),))):
        for status in ("failed", None):
            asked = (store, client_id, wanted, status)
            assert paged_conversations(*asked) == exact_conversations(*asked)


def read_the_rest(connection: Connection, client_id: str) -> None:
    """Read what is not rolled up; it has only to come to an end."""
    events = reads_of(client_id).events
    for by in ("name", "day", "release"):
        scores.get_scores(connection, by, EVERYTHING, events)
    search.search(connection, "failed", events=events)
    agents.newest_activities(connection, EVERYTHING, 50, events=events)
    for session_id in ("a", LONG_ID):
        history.newest_entries(connection, session_id, True, 50, None, 10**6, events)
    traces.get_trace(connection, "0" * 32, 50, 10**6, events)
