"""The outbox's SQL views say what the queries say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracker.events import make_event
from tracker.outbox.schema import tables
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.conversations import list_conversations

if TYPE_CHECKING:
    from sqlalchemy import Connection

LIFE = st.sampled_from(
    [
        ("conversation.started", {}),
        ("conversation.resumed", {}),
        ("conversation.ended", {}),
        ("conversation.ended", {"outcome": "resolved"}),
        ("conversation.ended", {"outcome": "Failure"}),
        ("conversation.ended", {"erased": True}),
        ("conversation.failed", {"error_message": "x"}),
        ("message.logged", {"role": "user", "content": "x"}),
    ]
)


def fill(connection: Connection, steps: list[tuple[str, tuple[str, Any]]]) -> None:
    for seq, (session, (type_, data)) in enumerate(steps, 1):
        event = make_event(type_, data, session_id=session)
        connection.execute(
            tables.events.insert().values(seq=seq, chain="", **event._asdict()),
        )


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), LIFE), max_size=12))
@example(
    steps=[
        ("a", ("conversation.failed", {})),
        ("a", ("conversation.resumed", {})),
        ("a", ("conversation.ended", {})),
    ]
)
def test_a_conversations_status(steps: list[tuple[str, tuple[str, Any]]]) -> None:
    """The view `conversations` and `list_conversations` agree, resumptions included."""
    with empty_outbox() as connection:
        for statement in tables.view_statements():
            connection.exec_driver_sql(statement)
        fill(connection, steps)
        viewed = connection.exec_driver_sql("SELECT session_id, status FROM conversations").all()
        listed = list_conversations(connection, limit=None)
    assert dict(map(tuple, viewed)) == {each.session_id: each.status for each in listed}
