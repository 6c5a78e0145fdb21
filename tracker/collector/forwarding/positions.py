"""How far the events were forwarded to a target, and which of them it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, delete, func, insert, select, update

from tracker.collector.tables import events, forward_targets, set_aside
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

MOST_COUNTED = 1_000_000
"""Further events are not counted."""
_NEWEST = 20
"""Maximum number of events that a status names."""


class OvertakenError(TrackerError):
    """Somebody else has moved the position since it was read."""


class Target(NamedTuple):
    """Where events are forwarded to.

    Attributes:
        name: What the position is kept under.
        client_id: The client whose events are forwarded; empty for those of all clients.
    """

    name: str
    client_id: str = ""


class Refused(NamedTuple):
    """An event that a target refuses for good, its id, and the code of the refusal."""

    position: int
    client_id: str
    event_id: str
    type: str
    code: str


class Move(NamedTuple):
    """What became of the events between two positions.

    Attributes:
        before: The position before, as it was read.
        after: The id of the last of the events.
        sent: How many of them the target has taken.
        skipped: How many were not sent, because a setting says so.
        refused: Those that the target refuses.
    """

    before: int
    after: int
    sent: int
    skipped: int
    refused: Sequence[Refused]


@dataclass(frozen=True)
class Status:
    """How things stand with a target.

    Attributes:
        name: What the position is kept under.
        client_id: The client whose events are forwarded; None for those of all clients.
        endpoint: The address that was last used.
        position: The id of the last event that is dealt with.
        behind: How many events came after it; counted up to 1,000,000.
        sent: How many events the target has taken.
        skipped: How many were not sent, because a setting says so.
        set_aside: How many the target refuses.
        newest_set_aside: The newest of these, at most 20.
        moved_at_ms: When the position was last moved, Unix milliseconds, or None.
        problem: Why nothing could be forwarded since, or None.
    """

    name: str
    client_id: str | None
    endpoint: str
    position: int
    behind: int
    sent: int
    skipped: int
    set_aside: int
    newest_set_aside: list[Refused]
    moved_at_ms: int | None
    problem: str | None


def begin(connection: Connection, target: Target, endpoint: str, now_ms: int) -> int:
    """Note where events go from now on; return when the target was first used."""
    mine = _of(target)
    known = connection.execute(select(forward_targets.c.created_at_ms).where(mine)).scalar()
    if known is None:
        start = {"position": 0, "sent": 0, "skipped": 0, "created_at_ms": now_ms}
        values = {**target._asdict(), "endpoint": endpoint, **start}
        connection.execute(insert(forward_targets).values(values))
        return now_ms
    now = {"endpoint": endpoint, "problem": None}
    connection.execute(update(forward_targets).where(mine).values(now))
    return int(known)


def position(connection: Connection, target: Target) -> int:
    """Return the id of the last event that is dealt with; 0 before the first."""
    found = connection.execute(select(forward_targets.c.position).where(_of(target)))
    return found.scalar() or 0


def move(connection: Connection, target: Target, move: Move, now_ms: int) -> None:
    """Note that events are dealt with.

    Raises:
        OvertakenError: if the position is not the one that was read.
    """
    columns = forward_targets.c
    moved = connection.execute(
        update(forward_targets)
        .where(_of(target), columns.position == move.before)
        .values(
            position=move.after,
            sent=columns.sent + move.sent,
            skipped=columns.skipped + move.skipped,
            moved_at_ms=now_ms,
            problem=None,
        )
    )
    if moved.rowcount != 1:
        raise OvertakenError(f"another process forwards events to {target.name} too")
    if move.refused:
        common = {"name": target.name, "of_client_id": target.client_id, "set_aside_at_ms": now_ms}
        rows = [{**common, **refused._asdict()} for refused in move.refused]
        connection.execute(insert(set_aside), rows)


def before_first(connection: Connection, since_ms: int) -> int | None:
    """Return the position before the first event that was received since then; None if none was.

    All events are looked at: where a clock was set, or that of one replica is wrong, times do not
    ascend with ids.
    """
    query = select(func.min(events.c.id)).where(events.c.received_at_ms >= since_ms)
    first = connection.execute(query).scalar()
    return None if first is None else first - 1


def rewind(connection: Connection, target: Target, before: int) -> None:
    """Go back to a position, and forget what was set aside after it.

    A position that is not as far stays where it is.
    """
    columns = forward_targets.c
    further = and_(_of(target), columns.position > before)
    connection.execute(update(forward_targets).where(further).values(position=before))
    refused = set_aside.c
    connection.execute(
        delete(set_aside).where(
            refused.name == target.name,
            refused.of_client_id == target.client_id,
            refused.position > before,
        )
    )


def note_problem(connection: Connection, target: Target, problem: str) -> None:
    """Note why nothing can be forwarded at present."""
    connection.execute(update(forward_targets).where(_of(target)).values(problem=problem))


def behind(connection: Connection, target: Target) -> int:
    """Return how many events are still to be dealt with, `MOST_COUNTED` at most."""
    waiting = events.c.id > position(connection, target)
    some = select(events.c.id).where(waiting, *of_target(target)).limit(MOST_COUNTED).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar() or 0


def statuses(connection: Connection) -> list[Status]:
    """Return how things stand with all targets, in the order of their names."""
    targets = select(forward_targets).order_by(*forward_targets.primary_key)
    return [
        _status(connection, Target(row.name, row.client_id), row)
        for row in connection.execute(targets).all()
    ]


def of_target(target: Target) -> list[ColumnElement[bool]]:
    """Return the conditions for the events that are forwarded to a target.

    They are such that no index is used for them: events are read in the order of their ids.
    """
    return [events.c.client_id.concat("") == target.client_id] if target.client_id else []


def _status(connection: Connection, target: Target, row: object) -> Status:
    known = {name: getattr(row, name) for name in _STORED}
    columns = set_aside.c
    mine = and_(columns.name == target.name, columns.of_client_id == target.client_id)
    count = connection.execute(select(func.count()).where(mine)).scalar() or 0
    newest = select(*(columns[name] for name in Refused._fields)).where(mine)
    found = connection.execute(newest.order_by(columns.position.desc()).limit(_NEWEST))
    return Status(
        **known,
        client_id=target.client_id or None,
        behind=behind(connection, target),
        set_aside=count,
        newest_set_aside=[Refused(*each) for each in found],
    )


_STORED = ("name", "endpoint", "position", "sent", "skipped", "moved_at_ms", "problem")


def _of(target: Target) -> ColumnElement[bool]:
    columns = forward_targets.c
    return and_(columns.name == target.name, columns.client_id == target.client_id)
