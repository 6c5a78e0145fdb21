"""What is told of each session in `rolled_conversations`: written here, read in `conversations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, delete, exists, func, select, true, update
from sqlalchemy import literal_column as sql
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert

from tracker.collector.erasure import forms
from tracker.collector.rollups.adding import filled, part
from tracker.collector.rollups.fields import SPOKEN, fails
from tracker.collector.rollups.position import CONVERSATIONS, move, position
from tracker.collector.rollups.tables import rolled_conversations
from tracker.collector.tables import events, heads
from tracker.erasure import named_events
from tracker.events import (
    COMPLIANCE_ERASED,
    CONVERSATION_ENDED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
)
from tracker.queries.conversations import ENDED, FAILED, OPEN
from tracker.queries.source import portions, text_field

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Select

_TABLE = rolled_conversations
_REPLACED = 500
"""How many sessions are rolled up again in one transaction."""
_REMOVED = 10_000
"""How many sessions without events are removed in one transaction."""
_HASH_BYTES = 4


def roll_on(connection: Connection, settled: int, size: int) -> tuple[int, bool]:
    """Do what is next: return how far it is done, and whether there was anything to do."""
    before = position(connection, CONVERSATIONS) or 0
    if _replace_stale(connection, before):
        return before, True
    if before >= settled:
        return before, False
    through = min(before + size, settled)
    _add(connection, part(events.c.id > before, events.c.id <= through))
    _note_erasures(connection, before, through)
    move(connection, CONVERSATIONS, through)
    return through, True


def hash_of(user_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return what a user's conversations are found by, others among them."""
    hashed = func.sha256(func.convert_to(user_id, sql("'UTF8'")))
    return func.substr(hashed, sql("1"), sql(f"{_HASH_BYTES}"))


def _add(connection: Connection, some: FromClause) -> None:
    """Add a part of the events, all of which came after those that are there."""
    query = insert(_TABLE).from_select([each.name for each in filled(_TABLE)], _rows(some))
    old, new = _TABLE.c, query.excluded
    ids = {
        name: func.greatest(old[name], new[name])
        for name in ("last_id", "opened_id", "failed_id", "ended_id")
    }
    connection.execute(
        query.on_conflict_do_update(
            index_elements=list(_TABLE.primary_key),
            set_={
                **ids,
                "received_ms": func.least(old.received_ms, new.received_ms),
                "spoken": old.spoken | new.spoken,
                "status": _status(ids["opened_id"], ids["failed_id"], ids["ended_id"]),
                "agent_id": func.coalesce(new.agent_id, old.agent_id),
                "user_hash": func.coalesce(new.user_hash, old.user_hash),
            },
        )
    )


def _rows(some: FromClause) -> Select[Any]:
    """Return the sessions of a part of the events, as `queries.conversations` sums them up."""
    event = some.c
    failing = fails(
        event.type, case((event.type == CONVERSATION_ENDED, text_field(some, "outcome")))
    )
    opened, failed, ended = (
        func.coalesce(func.max(event.id).filter(condition), sql("0"))
        for condition in (
            event.type.in_((CONVERSATION_STARTED, CONVERSATION_RESUMED)),
            failing,
            (event.type == CONVERSATION_ENDED) & ~failing,
        )
    )
    first = aggregate_order_by(event.timestamp_ms, event.id)
    return (
        select(
            *(event.client_id, event.session_id, func.min(event.id), func.array_agg(first)[1]),
            *(func.max(event.id), func.min(event.received_at_ms)),
            func.bool_or(event.type.in_(SPOKEN)),
            *(opened, failed, ended, _status(opened, failed, ended)),
            *(_last(event.agent_id, event.id), hash_of(_last(event.user_id, event.id))),
        )
        .where(event.session_id.is_not(None))
        .group_by(event.client_id, event.session_id)
    )


def _last(column: ColumnElement[str], id: ColumnElement[int]) -> Any:
    """Return the last value of a column that is not empty."""
    newest = func.array_agg(aggregate_order_by(column, id.desc()))
    return newest.filter(column != "").self_group()[1]


def _status(opened: Any, failed: Any, ended: Any) -> ColumnElement[str]:
    """Return the status that the newest event of each kind tells, as `partial.sessions` says."""
    return case((failed > opened, FAILED), (ended > opened, ENDED), else_=OPEN)


def _note_erasures(connection: Connection, before: int, through: int) -> None:
    """Note the sessions that erasures among new events have changed."""
    event = events.c
    within = (event.id > before, event.id <= through, event.type == COMPLIANCE_ERASED)
    for client_id, data in connection.execute(select(event.client_id, event.data).where(*within)):
        for some in portions(named_events(data)):
            mine = (event.client_id == client_id, event.event_id.in_(forms(some)))
            sessions = select(event.session_id).where(*mine)
            rows = (_TABLE.c.client_id == client_id, _TABLE.c.session_id.in_(sessions))
            connection.execute(update(_TABLE).where(*rows).values(stale=true()))


def _replace_stale(connection: Connection, through: int) -> bool:
    """Roll some sessions up again that need it; return False if none does."""
    client_id = connection.execute(
        select(_TABLE.c.client_id).where(_TABLE.c.stale).limit(1)
    ).scalar()
    if client_id is None:
        return False
    stale = select(_TABLE.c.session_id).where(_TABLE.c.client_id == client_id, _TABLE.c.stale)
    sessions = connection.execute(stale.limit(_REPLACED)).scalars().all()
    mine = (_TABLE.c.client_id == client_id, _TABLE.c.session_id.in_(sessions))
    connection.execute(delete(_TABLE).where(*mine))
    event = events.c
    rolled = (event.session_id.in_(sessions), event.id <= through)
    _add(connection, part(event.client_id == client_id, *rolled))
    return True


def pruned(connection: Connection) -> dict[str, int]:
    """Return the clients of which events were deleted by age, and before which time."""
    head = heads.c
    query = select(head.client_id, func.max(head.pruned_before_ms)).where(head.pruned_before_ms > 0)
    return dict(map(tuple, connection.execute(query.group_by(head.client_id))))


def remove_gone(connection: Connection, client_id: str, before_ms: int) -> bool:
    """Remove some sessions of which all events were deleted; return whether there may be more."""
    one, event = _TABLE.c, events.c
    left = exists().where(event.client_id == client_id, event.session_id == one.session_id)
    old = (one.client_id == client_id, one.received_ms < before_ms)
    gone = select(one.session_id).where(*old, ~left).limit(_REMOVED)
    mine = (one.client_id == client_id, one.session_id.in_(gone))
    return connection.execute(delete(_TABLE).where(*mine)).rowcount == _REMOVED
