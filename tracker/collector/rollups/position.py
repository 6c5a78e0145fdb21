"""How far the events are rolled up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from tracker.collector.rollups.tables import rolled

if TYPE_CHECKING:
    from sqlalchemy import Connection

SUMS, CONVERSATIONS = "events", "conversations"
"""What is rolled up, each by itself: a former version knows only sums."""


def position(connection: Connection, name: str = SUMS) -> int | None:
    """Return up to which id events are rolled up; None if none are."""
    query = select(rolled.c.position).where(rolled.c.name == name)
    return connection.execute(query).scalar()


def move(connection: Connection, name: str, through: int) -> None:
    """Note that all events up to an id are rolled up, in the transaction that does it."""
    query = insert(rolled).values(name=name, position=through)
    at = {"position": through}
    connection.execute(query.on_conflict_do_update(index_elements=["name"], set_=at))
