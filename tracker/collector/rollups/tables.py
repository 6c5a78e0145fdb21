"""The tables of roll-ups: what is added up, by client and UTC day, and conversations to find.

Each column of what is added up that is no key says in its `info` how two values become one, so that
events can be added in any number of steps. A key is a hash where texts may be longer than an index
takes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    Text,
    column,
    false,
)

from tracker.collector.tables import MAX_ID_LENGTH, metadata

_STATUS_LENGTH = 16

ADDED, MOST, LEAST = "added", "most", "least"
"""How two values become one: their sum, the larger, the smaller."""

TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
)


def _client() -> Column[str]:
    return Column("client_id", String(MAX_ID_LENGTH), primary_key=True)


def _by_day() -> tuple[Column[Any], ...]:
    # Days are counted from 1970; all before that are day -1.
    return (
        _client(),
        Column("day", BigInteger, primary_key=True, autoincrement=False),
        Column("key", LargeBinary, primary_key=True),
        Column("agent_id", String(MAX_ID_LENGTH)),
    )


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, info={"merged": ADDED})


def _id(name: str) -> Column[int]:
    """Return the column of the newest event of some kind; 0 if there is none."""
    return Column(name, BigInteger, nullable=False, info={"merged": MOST})


def _amount(name: str, merged: str = ADDED) -> Column[Any]:
    return Column(name, Numeric, info={"merged": merged})


def _calls() -> tuple[Column[Any], ...]:
    """Return the columns of model calls: how many, tokens, cost, how many of them have a cost."""
    return (_count("calls"), *map(_amount, TOKENS), _amount("cost_usd"), _count("priced"))


def _standing() -> tuple[Column[Any], ...]:
    """Return the columns that a conversation's status is told by."""
    # How many events make it a conversation.
    return (_count("spoken"), _id("opened_id"), _id("failed_id"), _id("ended_id"))


rolled = Table(
    "rolled",
    metadata,
    Column("name", String(MAX_ID_LENGTH), primary_key=True),
    # All events up to this id are in its tables.
    Column("position", BigInteger, nullable=False),
)
"""How far the events were rolled up: at most a row for sums, and one for conversations."""

rolled_sessions = Table(
    "rolled_sessions",
    metadata,
    *_by_day(),
    # Null for the calls of no session.
    Column("session_id", String(MAX_ID_LENGTH)),
    # Whether the session has, or had, another row: all others can be counted one by one.
    Column("shared", Boolean, nullable=False, server_default=false()),
    *_standing(),
    *_calls(),
    Index("ix_rolled_sessions_session", "client_id", "session_id"),
)
"""Sessions by day and agent: their status, and the model calls that have tokens."""

rolled_conversations = Table(
    "rolled_conversations",
    metadata,
    _client(),
    Column("session_id", String(MAX_ID_LENGTH), primary_key=True),
    # Its first event, and the time of that one.
    Column("first_id", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("last_id", BigInteger, nullable=False),
    # When the earliest of its events was received: none is deleted by age unless this one may be.
    Column("received_ms", BigInteger, nullable=False),
    # Whether an event makes it a conversation.
    Column("spoken", Boolean, nullable=False),
    *(Column(f"{name}_id", BigInteger, nullable=False) for name in ("opened", "failed", "ended")),
    Column("status", String(_STATUS_LENGTH), nullable=False),
    Column("agent_id", String(MAX_ID_LENGTH)),
    # The beginning of a hash: enough to find a user's by.
    Column("user_hash", LargeBinary),
    # Whether an event of it was erased since, so that it has to be rolled up again.
    Column("stale", Boolean, nullable=False, server_default=false()),
    *(
        Index(f"ix_rolled_conversations_{name}", "client_id", *columns)
        for name, columns in {
            "first": ("first_id",),
            "status": ("status", "first_id"),
            "agent": ("agent_id", "first_id"),
            "user": ("user_hash", "first_id"),
            "started": ("started_ms",),
            "received": ("received_ms",),
        }.items()
    ),
    Index(
        "ix_rolled_conversations_stale",
        "client_id",
        sqlite_where=column("stale"),
        postgresql_where=column("stale"),
    ),
)
"""Sessions, to find conversations by: when they began, whose they are, and their status."""

rolled_usage = Table(
    "rolled_usage",
    metadata,
    *_by_day(),
    Column("model", Text),
    # Whether they have tokens; an erased call has none.
    Column("counted", Boolean, nullable=False),
    *_calls(),
)
"""Model calls by day, agent and model."""

rolled_figures = Table(
    "rolled_figures",
    metadata,
    *_by_day(),
    # Of all agents together; `agent_id` is null then, too.
    Column("of_all", Boolean, nullable=False),
    # What is counted; see `partial`.
    Column("kind", String(MAX_ID_LENGTH), nullable=False),
    Column("name", Text),
    Column("value", Text),
    Column("bucket", Integer),
    _count("amount"),
    _amount("total"),
    _amount("least", LEAST),
    _amount("most", MOST),
)
"""Everything else that is counted or summed up by day and agent."""

rolled_agents = Table(
    "rolled_agents",
    metadata,
    _client(),
    Column("agent_id", String(MAX_ID_LENGTH), primary_key=True),
    Column("last_seen_ms", BigInteger, nullable=False, info={"merged": MOST}),
    _id("last_id"),
    _id("registered_id"),
    _id("changed_id"),
)
"""Agents: when they were last heard of, and the events that tell their state."""

rolled_stale = Table(
    "rolled_stale",
    metadata,
    _client(),
    Column("day", BigInteger, primary_key=True, autoincrement=False),
)
"""Days of clients that have to be rolled up again, since an event of them was erased."""
