"""Histories and lists of conversations, from rows as they may lie in an outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.queries.test_metrics import NOON_MS, Raw, store
from tracker.errors import ValidationError
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.conversations import (
    Conversation,
    find_conversation,
    list_conversations,
)
from tracker.queries.filters import checked
from tracker.queries.history import ToolCall, get_conversation_history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

TALK = [
    Raw("conversation.started", NOON_MS),
    Raw(
        "message.logged",
        NOON_MS + 5,
        data={"role": "user", "content": "Hé?", "metadata": {"a": 1}},
    ),
    Raw("message.logged", NOON_MS + 6, "s-2", data={"role": "user", "content": "another"}),
    Raw(
        "tool.called",
        NOON_MS + 4,  # the clock was set back: order is the order of logging
        data={"name": "find", "arguments": [1], "result": {"b": None}, "duration_ms": 1.5},
    ),
    Raw("llm.used", NOON_MS + 6, data={"cost_usd": 0.25, "total_tokens": 9}),
    Raw(
        "message.logged",
        NOON_MS + 9,
        data={"role": "agent", "content": "Hm.", "response_time_ms": 4.25, "tokens_used": 7},
    ),
    Raw("conversation.ended", NOON_MS + 10, data={"quality_score": 4.5, "outcome": "resolved"}),
]
STATUS_TYPES = [
    *("conversation.started", "conversation.resumed", "conversation.failed"),
    *("conversation.ended", "conversation.ended!", "message.logged", "llm.used"),
]


@pytest.fixture
def connection() -> Iterator[Connection]:
    with empty_outbox() as connection:
        store(connection, TALK)
        yield connection


def test_a_history_is_typed_and_in_order(connection: Connection) -> None:
    """Messages and tool calls of this conversation alone, as they were logged."""
    question, call, answer = get_conversation_history(connection, "s-1")
    assert (question.role, question.content, question.metadata) == ("user", "Hé?", {"a": 1})
    assert (question.timestamp_ms, question.response_time_ms) == (NOON_MS + 5, None)
    assert (call.role, call.type, call.content) == ("tool", "tool.called", None)
    assert call.tool_call == ToolCall("find", [1], {"b": None}, duration_ms=1.5)
    assert (answer.response_time_ms, answer.tokens_used) == (4.25, 7)
    assert question.seq < call.seq < answer.seq


def test_without_content_nothing_that_was_said_is_returned(connection: Connection) -> None:
    """Figures, names and times stay."""
    entries = get_conversation_history(connection, "s-1", include_content=False)
    assert [entry.content for entry in entries] == [None] * 3
    assert [entry.metadata for entry in entries] == [None] * 3
    assert entries[1].tool_call == ToolCall("find", duration_ms=1.5)
    assert entries[2].tokens_used == 7
    with pytest.raises(ValidationError, match="include_content: is of type str"):
        get_conversation_history(connection, "s-1", include_content="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "roles"),
    [(0, []), (2, ["tool", "agent"]), (9, ["user", "tool", "agent"])],
)
def test_a_limit_takes_the_newest(connection: Connection, limit: int, roles: list[str]) -> None:
    """In order all the same; one beyond the end takes all."""
    entries = get_conversation_history(connection, "s-1", limit=limit)
    assert [entry.role for entry in entries] == roles


def test_an_unknown_conversation_has_no_history(connection: Connection) -> None:
    """Nor is it one that can be found."""
    assert get_conversation_history(connection, "no such") == ()
    assert find_conversation(connection, "no such") is None


@pytest.mark.parametrize("arguments", [{"session_id": ""}, {"session_id": "s", "limit": -1}])
def test_wrong_arguments_are_refused(connection: Connection, arguments: dict[str, Any]) -> None:
    """As with the logging calls."""
    with pytest.raises(ValidationError):
        get_conversation_history(connection, **arguments)


@pytest.mark.parametrize("stored", ['{"erased":true}', "{}", '{"cut', "[]", "null", "NaN", "7"])
def test_erased_and_damaged_data_do_not_break_reads(connection: Connection, stored: str) -> None:
    """The entries are there, with nothing in them; only erased ones say so."""
    connection.exec_driver_sql("UPDATE events SET data = ?", (stored,))
    entries = get_conversation_history(connection, "s-1")
    assert [entry.role for entry in entries] == [None, "tool", None]
    assert [entry.content for entry in entries] == [None] * 3
    assert {entry.erased for entry in entries} == {"erased" in stored}
    assert {call.tool_call for call in entries[1:2]} <= {None, ToolCall()}
    conversation = find_conversation(connection, "s-1")
    assert conversation is not None
    assert (conversation.status, conversation.messages, conversation.tokens_used) == ("ended", 2, 0)


def test_fields_of_a_wrong_type_are_none(connection: Connection) -> None:
    """What was written past the tracker does not come out under a type that it has not."""
    odd = '{"role":1,"content":[2],"tokens_used":"3","response_time_ms":true,"metadata":4}'
    connection.exec_driver_sql("UPDATE events SET data = ?", (odd,))
    entry = get_conversation_history(connection, "s-1")[0]
    assert (entry.role, entry.content, entry.tokens_used) == (None, None, None)
    assert (entry.response_time_ms, entry.metadata) == (None, None)


def test_a_conversation_as_a_whole(connection: Connection) -> None:
    """Counts, sums, and how it stands."""
    assert find_conversation(connection, "s-1") == Conversation(
        "s-1",
        "a-1",
        None,
        "ended",
        "resolved",
        4.5,
        started_at_ms=NOON_MS,
        last_at_ms=NOON_MS + 10,
        messages=2,
        tool_calls=1,
        tokens_used=7,
        cost_usd=0.25,
    )


def ids(conversations: tuple[Conversation, ...]) -> list[str]:
    return [conversation.session_id for conversation in conversations]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["s-1", "s-2"]),
        ({"limit": 1}, ["s-2"]),
        ({"limit": 0}, []),
        ({"limit": None}, ["s-1", "s-2"]),
        ({"status": "open"}, ["s-2"]),
        ({"status": "ended"}, ["s-1"]),
        ({"status": "failed"}, []),
        ({"agent_id": "a-1", "status": "ended"}, ["s-1"]),
        ({"agent_id": "a-2"}, []),
        ({"user_id": "u"}, []),
        ({"since": NOON_MS + 1}, ["s-2"]),
        ({"until": NOON_MS + 6}, ["s-1"]),
        ({"since": NOON_MS, "until": NOON_MS + 7, "limit": 1}, ["s-2"]),
    ],
)
def test_lists_of_conversations(
    connection: Connection, wanted: dict[str, Any], found: list[str]
) -> None:
    """Each filter, and the newest within the limit, in the order they began."""
    own = {name: wanted[name] for name in ("status", "limit") if name in wanted}
    filters = checked(**{name: wanted[name] for name in wanted.keys() - own.keys()})
    assert ids(list_conversations(connection, filters, **own)) == found


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STATUS_TYPES)), max_size=12))
def test_a_list_by_status_is_the_list_filtered(events: list[tuple[str, str]]) -> None:
    """The short cut by which conversations of a status are found leaves none out."""
    with empty_outbox() as connection:
        data = {"outcome": "failure"}
        store(
            connection,
            [
                Raw(type_.removesuffix("!"), session_id=session, data=data if "!" in type_ else {})
                for session, type_ in events
            ],
        )
        connection.exec_driver_sql("UPDATE events SET timestamp_ms = 'soon' WHERE seq % 3 = 0")
        everything = list_conversations(connection)
        for status in ("open", "ended", "failed"):
            wanted = tuple(each for each in everything if each.status == status)
            assert list_conversations(connection, status=status) == wanted


def test_an_unknown_status_is_refused(connection: Connection) -> None:
    """It would silently find nothing."""
    with pytest.raises(ValidationError, match="status: is 'closed'"):
        list_conversations(connection, status="closed")


def test_a_session_of_model_calls_is_no_conversation(connection: Connection) -> None:
    """Nor is one that was only given feedback or reported on."""
    store(connection, [Raw("llm.used", session_id="job"), Raw("security.reported", session_id="x")])
    assert ids(list_conversations(connection)) == ["s-1", "s-2"]


def test_many_conversations_are_read_in_chunks(connection: Connection) -> None:
    """The end of a chunk loses none and repeats none."""
    store(connection, [Raw("conversation.started", session_id=f"n-{n}") for n in range(450)])
    expected = ["s-1", "s-2", *(f"n-{n}" for n in range(450))]
    assert ids(list_conversations(connection, limit=None)) == expected
    assert ids(list_conversations(connection, limit=201)) == expected[-201:]
