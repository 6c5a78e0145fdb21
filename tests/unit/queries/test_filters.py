"""Each filter finds the events that it names, in an outbox, and nothing damaged stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracker import canonical
from tracker.errors import ValidationError
from tracker.events import make_event
from tracker.outbox import browse, tables
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.agents import states
from tracker.queries.conversations import list_conversations
from tracker.queries.filters import EVERYTHING, Filters, checked
from tracker.queries.metrics import get_metrics
from tracker.queries.usage import usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

NOON_MS = 1_793_534_400_000
ODD = "a.\"$[0]'\\ ü"
EVENTS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("conversation.started", {"session_id": "s1", "agent_id": "a1", "user_id": "u1"}, None),
    ("message.logged", {"session_id": "s1", "agent_id": "a1", "user_id": "u1"},
     {"environment": "prod", "release": "1.0", "tags": {"site": "oslo", "line": "4"}}),
    ("conversation.started", {"session_id": "s2", "agent_id": "a2", "user_id": "u2"}, None),
    ("message.logged", {"session_id": "s2", "agent_id": "a2", "user_id": "u2"},
     {"environment": "test", "release": "1.0", "tags": {"site": "bergen", ODD: ODD}}),
    ("llm.used", {"session_id": "s2", "agent_id": "a2"},
     {"environment": "prod", "release": "1.1", "tags": {"site": "oslo"}}),
    ("llm.used", {"agent_id": "a1"}, {"environment": 7, "release": ["1.0"], "tags": "site"}),
    ("llm.used", {}, {"tags": {"line": 4, "site": None}}),
]  # fmt: skip
RUNS = {1: "nightly", 3: "daily"}


@pytest.fixture
def outbox() -> Iterator[Connection]:
    with empty_outbox() as connection:
        for seq, (type_, whose, context) in enumerate(EVENTS, 1):
            data: dict[str, Any] = {"run_id": RUNS[seq]} if seq in RUNS else {}
            if type_ == "llm.used":
                data = {"model": "m", "prompt_tokens": 1, "total_tokens": 2}
            encoded = None if context is None else canonical.encode(context)
            event = make_event(type_, data, context=encoded, **whose)
            row = {**event._asdict(), "timestamp_ms": NOON_MS + seq, "seq": seq, "chain": ""}
            connection.execute(tables.events.insert().values(row))
        yield connection


def seqs(connection: Connection, wanted: Filters) -> list[int]:
    condition = browse.Condition(*wanted.sql(connection))
    return [event.seq for event in browse.select(connection, condition)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"since_ms": NOON_MS + 3}, [3, 4, 5, 6, 7]),
        ({"until_ms": NOON_MS + 3}, [1, 2]),
        ({"since_ms": NOON_MS + 2, "until_ms": NOON_MS + 3}, [2]),
        ({"since_ms": 10**30}, []),
        ({"since_ms": -(10**30), "until_ms": 10**30}, [1, 2, 3, 4, 5, 6, 7]),
        ({"agent_id": "a1"}, [1, 2, 6]),
        ({"user_id": "u2"}, [3, 4]),
        ({"session_id": "s2"}, [3, 4, 5]),
        ({"run_id": "nightly"}, [1, 2]),
        ({"run_id": "daily", "type": "llm.used"}, [5]),
        ({"run_id": "night"}, []),
        ({"type": "llm.used"}, [5, 6, 7]),
        ({"type": "conversation.*"}, [1, 3]),
        ({"type": "conversation"}, []),
        ({"type": "message.*", "agent_id": "a2"}, [4]),
        ({"environment": "prod"}, [2, 5]),
        ({"environment": "7"}, []),
        ({"release": "1.0"}, [2, 4]),
        ({"environment": "prod", "release": "1.0"}, [2]),
        ({"tags": (("site", "oslo"),)}, [2, 5]),
        ({"tags": (("site", "oslo"), ("line", "4"))}, [2]),
        ({"tags": ((ODD, ODD),)}, [4]),
        ({"tags": (("line", "4"),)}, [2]),
        ({"tags": (("site", ""),)}, []),
        ({"agent_id": "' OR 1=1 --"}, []),
    ],
)
def test_each_filter_finds_its_events(
    outbox: Connection, wanted: dict[str, Any], found: list[int]
) -> None:
    """In lists and in sums: what is listed by one is what is summed by the other."""
    filters = Filters(**wanted)
    assert seqs(outbox, filters) == found
    calls = sum(EVENTS[seq - 1][0] == "llm.used" for seq in found)
    assert sum(one.calls for one in usage(outbox, "model", filters)) == calls
    messages = sum(EVENTS[seq - 1][0] == "message.logged" for seq in found)
    assert get_metrics(outbox, filters).messages == messages


@pytest.mark.parametrize(
    ("wanted", "agents", "sessions"),
    [
        ({"environment": "prod"}, ["a1", "a2"], ["s1", "s2"]),
        ({"environment": "test"}, ["a2"], ["s2"]),
        ({"release": "1.1"}, ["a2"], ["s2"]),
        ({"run_id": "nightly"}, ["a1"], ["s1"]),
        ({"type": "llm.used"}, ["a1", "a2"], ["s2"]),
        ({"tags": (("line", "4"),)}, ["a1"], ["s1"]),
        ({"session_id": "s1"}, ["a1"], ["s1"]),
        ({"environment": "prod", "agent_id": "a1"}, ["a1"], ["s1"]),
        ({"environment": "prod", "agent_id": "a3"}, [], []),
    ],
)
def test_agents_and_conversations_with_an_event_that_matches(
    outbox: Connection, wanted: dict[str, Any], agents: list[str], sessions: list[str]
) -> None:
    """They are shown whole: the filters choose among them, not among their events."""
    filters = Filters(**wanted)
    assert [agent.agent_id for agent in states(outbox, filters)] == agents
    found = list_conversations(outbox, filters)
    assert [each.session_id for each in found] == sessions
    everything = {each.session_id: each for each in list_conversations(outbox)}
    assert all(each == everything[each.session_id] for each in found)


def test_a_conversation_is_of_the_period_in_which_it_started(outbox: Connection) -> None:
    """Whatever was logged in it later."""
    found = list_conversations(outbox, Filters(since_ms=NOON_MS + 3, until_ms=NOON_MS + 4))
    assert [each.session_id for each in found] == ["s2"]


def test_an_agent_is_of_a_period_in_which_it_was_seen(outbox: Connection) -> None:
    """It may have been seen again later."""
    found = states(outbox, Filters(until_ms=NOON_MS + 3))
    assert [(each.agent_id, each.last_seen_ms) for each in found] == [("a1", NOON_MS + 6)]


def test_damage_hides_no_other_event(outbox: Connection) -> None:
    """A row whose context or data is no JSON any more matches no filter that looks into it."""
    outbox.exec_driver_sql(
        "UPDATE events SET context = '{\"tags', data = x'00' WHERE seq IN (1, 2)"
    )
    for wanted in (Filters(environment="prod"), Filters(tags=(("site", "oslo"),))):
        assert seqs(outbox, wanted) == [5]
    assert seqs(outbox, Filters(run_id="daily")) == [3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"since": 2, "until": 1}, "^until: is before since"),
        ({"environment": ""}, "^environment: is empty"),
        ({"release": 1}, "^release: is of type int"),
        ({"tags": {"site": 4}}, r"^tags\['site'\]: is of type int"),
        ({"tags": "site=oslo"}, "^tags: is of type str"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """A filter that can match nothing, or is no filter, would be silence."""
    with pytest.raises(ValidationError, match=message):
        checked(**arguments)


def test_no_filter_is_every_event(outbox: Connection) -> None:
    """And costs a query nothing."""
    assert checked() == EVERYTHING == Filters()
    assert EVERYTHING.sql(outbox)[1] == ()
