"""Agents' operations: what is refused, and what the queries make of stored events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from tests.support.settings import quick
from tracker import (
    AgentOperationsTracker,
    AgentState,
    AgentStatus,
    OperationsOverview,
    ValidationError,
)
from tracker.outbox.schema import tables
from tracker.queries import agents
from tracker.queries.filters import Filters
from tracker.testing import RecordingDestination
from tracker.trackers.operations import Statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


STATUSES = ("active", "idle", "busy", "error")
KINDS = ("agent.registered", "agent.status_changed", "agent.activity", "agent.heartbeat")


@pytest.mark.parametrize(
    ("method", "arguments", "more", "message"),
    [
        ("register_agent", ("",), {}, "^agent_id: is empty"),
        ("register_agent", ("a",), {"name": 5}, "^name: is of type int"),
        ("register_agent", ("a",), {"capabilities": "search"}, "^capabilities: is of type str; gi"),
        ("register_agent", ("a",), {"capabilities": ["x", ""]}, r"^capabilities\[1\]: is empty"),
        ("register_agent", ("a",), {"capabilities": {"x"}}, "^capabilities: is of type set"),
        ("update_agent_status", ("a", "Active"), {}, "^status: is 'Active'; give one of 'active'"),
        ("update_agent_status", ("a", "offline"), {}, "^status: is 'offline'"),
        ("update_agent_status", ("a", None), {}, "^status: is None"),
        ("update_agent_status", ("a", "idle"), {"metadata": 1}, "^metadata: is of type int"),
        ("log_activity", ("a", ""), {}, "^activity: is empty"),
        ("log_activity", ("a", "x"), {"duration_ms": -1}, "^duration_ms: is -1"),
        ("log_activity", ("a", "x"), {"details": {1}}, "^details: set is not JSON-serialisable"),
        ("log_activity", ("a", "x"), {"session_id": ""}, "^session_id: is empty"),
        ("heartbeat", ("a" * 257,), {}, "^agent_id: has 257 characters"),
        ("heartbeat", ("a",), {"metadata": {1: 2}}, "^metadata: has the key"),
        ("get_agent_status", (None,), {}, "^agent_id: is None"),
        ("get_active_agents", (), {"since": "now"}, "^since: is of type str"),
        ("get_recent_activity", (), {"limit": 0}, "^limit: is 0; give an int, 1 or more"),
        ("get_recent_activity", ("",), {}, "^agent_id: is empty"),
        ("get_operations_overview", (), {"since": 2**63}, "^since: is out of range"),
    ],
)
def test_wrong_arguments_are_refused(
    empty: AgentOperationsTracker,
    method: str,
    arguments: tuple[Any, ...],
    more: dict[str, Any],
    message: str,
) -> None:
    """Each argument is checked before anything is stored."""
    with pytest.raises(ValidationError, match=message):
        getattr(empty, method)(*arguments, **more)
    assert empty.get_operations_overview().agents == 0


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentOperationsTracker]:
    """A tracker for all calls that store nothing."""
    settings = quick(tmp_path_factory.mktemp("empty"))
    with AgentOperationsTracker(settings, destination=RecordingDestination) as tracker:
        yield tracker


def test_the_enum_is_the_four_words() -> None:
    """AgentStatus has exactly the protocol's words, equal to them and printed as them."""
    assert tuple(AgentStatus) == STATUSES
    assert [f"{status}" for status in AgentStatus] == list(STATUSES)


def test_what_is_remembered_is_bounded() -> None:
    """The agent used longest ago is forgotten first."""
    statuses = Statuses(most=2)
    first, second = statuses.of("a"), statuses.of("b")
    assert statuses.of("a") is first
    third = statuses.of("c")
    assert statuses.of("a") is first, "it was used since b"
    assert statuses.of("c") is third
    assert statuses.of("b") is not second


def test_erased_and_damaged_events_do_not_break_reads() -> None:
    """A row that lost its data, or whose data is no JSON, tells that the agent was there."""
    rows = [
        row(1, "agent.status_changed", 10, {"status": "busy"}),
        row(2, "agent.status_changed", 20, {"erased": True}),
        row(3, "agent.activity", 30, {"erased": True}),
        {**row(4, "agent.activity", 40, {}), "data": "{"},
        {**row(5, "agent.registered", 50, {}), "data": "[1]"},
    ]
    assert run(rows, agents.states) == [AgentState("a", None, None, None, None, 20, 50)]
    assert run(rows, lambda c: agents.recent_activity(c, Filters(), 9)) == []
    assert run(rows, lambda c: agents.last_status(c, "a")) is None


def test_a_status_of_a_newer_version_is_none() -> None:
    """A word that this version does not know is no status of its own."""
    rows = [row(1, "agent.status_changed", 10, {"status": "asleep", "previous_status": "idle"})]
    (state,) = run(rows, agents.states)
    assert (state.status, state.previous_status) == (None, AgentStatus.IDLE)
    assert run(rows, lambda connection: agents.overview(connection)).without_status == 1


@given(
    logged=st.lists(
        st.tuples(
            st.sampled_from([*KINDS, "message.logged", "free.event"]),
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 1000),
            st.sampled_from(STATUSES),
        ),
        max_size=40,
    ),
    since_ms=st.none() | st.integers(0, 1000),
    limit=st.integers(1, 10),
)
def test_reads_equal_the_raw_events(
    logged: list[tuple[str, str, int, str]], since_ms: int | None, limit: int
) -> None:
    """States, activity and overview equal the same computed in plain Python."""
    rows = []
    last: dict[str, str] = {}
    seen: dict[str, int] = {}
    counted = dict.fromkeys(KINDS, 0)
    activity = []
    for seq, (kind, agent_id, at_ms, status) in enumerate(logged, 1):
        of_type = {"agent.status_changed": {"status": status}, "agent.activity": {"activity": "x"}}
        rows.append(row(seq, kind, at_ms, of_type.get(kind, {}), agent_id))
        seen[agent_id] = max(seen.get(agent_id, 0), at_ms)
        if kind not in KINDS:
            continue
        if kind == "agent.status_changed":
            last[agent_id] = status
        if since_ms is None or at_ms >= since_ms:
            counted[kind] += 1
            if kind == "agent.activity" and agent_id == "a":
                activity.append(str(seq))
    states = run(rows, lambda connection: agents.states(connection, Filters(since_ms)))
    assert {one.agent_id: (one.status, one.last_seen_ms) for one in states} == {
        agent_id: (last.get(agent_id), at_ms)
        for agent_id, at_ms in seen.items()
        if since_ms is None or at_ms >= since_ms
    }
    recent = run(rows, lambda c: agents.recent_activity(c, Filters(since_ms, agent_id="a"), limit))
    assert [one.event_id for one in recent] == activity[::-1][:limit]
    statuses = [last.get(agent_id) for agent_id in seen]
    assert run(rows, lambda connection: agents.overview(connection, Filters(since_ms))) == (
        OperationsOverview(
            agents=len(seen),
            active=statuses.count("active"),
            idle=statuses.count("idle"),
            busy=statuses.count("busy"),
            error=statuses.count("error"),
            without_status=statuses.count(None),
            activities=counted["agent.activity"],
            status_changes=counted["agent.status_changed"],
            heartbeats=counted["agent.heartbeat"],
            last_seen_ms=max(seen.values(), default=None),
        )
    )
    for agent_id in "abc":
        newest = run(rows, lambda c, agent_id=agent_id: agents.last_status(c, agent_id))  # type: ignore[misc]  # mypy cannot infer it
        assert newest == last.get(agent_id)


def row(
    seq: int, type: str, at_ms: int, data: dict[str, Any], agent_id: str = "a"
) -> dict[str, Any]:
    return {
        "seq": seq, "event_id": str(seq), "type": type, "timestamp_ms": at_ms,
        "agent_id": agent_id, "digest": "", "chain": "", "data": json.dumps(data),
    }  # fmt: skip


def run(rows: list[dict[str, Any]], query: Callable[[Any], Any]) -> Any:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        tables.metadata.create_all(connection)
        if rows:
            connection.execute(tables.events.insert(), rows)
        found = query(connection)
    engine.dispose()
    return found
