"""Reading stored events, for ``tracker-sync list`` and ``show``."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tracker import canonical
from tracker.erasure import ERASED
from tracker.errors import TrackerError
from tracker.events import CONVERSATION_STARTED
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

PENDING = "pending"
DELIVERED = "delivered"
DEAD = "dead"
SKIPPED = "skipped"

_CHUNK = 100

_COLUMNS = (
    "seq, event_id, type, timestamp_ms, agent_id, session_id, user_id, data, digest, chain, "
    "delivered_at_ms, dead_at_ms, dead_code, dead_message, context, trace, salt, sealed"
)

_STATES = {
    # The first half costs nothing and lets the search skip everything that is settled.
    PENDING: f"seq > (SELECT settled_through FROM sync_state) AND {tables.PENDING}",
    DELIVERED: "delivered_at_ms IS NOT NULL AND dead_code IS NULL",
    DEAD: "dead_at_ms IS NOT NULL",
    SKIPPED: "delivered_at_ms IS NOT NULL AND dead_code IS NOT NULL",
}


class StoredEvent(NamedTuple):
    """One row of the outbox. In a damaged file, its values may be of any type."""

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: str
    digest: str
    chain: str
    delivered_at_ms: int | None
    dead_at_ms: int | None
    dead_code: str | None
    dead_message: str | None
    context: str | None = None
    trace: str | None = None
    salt: bytes | None = None
    sealed: bytes | None = None

    @property
    def state(self) -> str:
        """``"pending"``, ``"delivered"``, ``"skipped"`` or ``"dead"``."""
        return state_of(self.delivered_at_ms, self.dead_at_ms, self.dead_code)

    @property
    def intact(self) -> bool:
        """Whether the row still matches its digest."""
        return canonical.matches(*self[1:9], *self[14:])

    @property
    def erased(self) -> bool:
        """Whether its data looks erased; only `integrity.verify` checks it against the erasures.

        If it had a salt, what is left of it matches its digest as well.
        """
        looks_so = self.data == ERASED and self.salt is None
        return looks_so and self.intact == (self.sealed is not None)


class Delivery(NamedTuple):
    """How far an event has come.

    Attributes:
        state: ``"pending"``, ``"delivered"``, ``"skipped"`` or ``"dead"``.
        code: Why the server refused it, in one word, or None.
        message: The server's words, or None.
        delivered_at_ms: When it was settled by a receipt, Unix milliseconds, or None.
        dead_at_ms: When it was refused for good, Unix milliseconds, or None.
    """

    state: str
    code: str | None = None
    message: str | None = None
    delivered_at_ms: int | None = None
    dead_at_ms: int | None = None


def deliveries(connection: Connection, session_id: str) -> dict[int, Delivery]:
    """Return how far each event of a conversation has come, by its seq, in order."""
    rows = connection.exec_driver_sql(
        "SELECT seq, delivered_at_ms, dead_at_ms, dead_code, dead_message FROM events "
        "WHERE session_id = ? ORDER BY seq",
        (session_id,),
    )
    return {
        seq: Delivery(state_of(delivered, dead, code), code, message, delivered, dead)
        for seq, delivered, dead, code, message in rows
    }


def state_of(delivered_at_ms: object, dead_at_ms: object, dead_code: object) -> str:
    """Return the state of an event by what its row says of it."""
    if dead_at_ms is not None:
        return DEAD
    if delivered_at_ms is None:
        return PENDING
    return DELIVERED if dead_code is None else SKIPPED


class Condition(NamedTuple):
    """SQL over the columns of `events` and values to bind in it; by default it is true of all."""

    sql: str = "1"
    values: tuple[Any, ...] = ()

    def in_state(self, state: str | None) -> Condition:
        """Return the same for events in one of the states above; None: for all."""
        return self if state is None else Condition(f"{self.sql} AND {_STATES[state]}", self.values)


EVERY = Condition()


def select(
    connection: Connection, wanted: Condition = EVERY, limit: int = 0
) -> Iterator[StoredEvent]:
    """Yield the newest `limit` of the selected events, oldest first; all of them for 0.

    Reads in chunks and keeps no cursor open between them: however slowly the caller consumes the
    events, the application's write-ahead log can be reset meanwhile. Events logged after the start
    are not included.
    """
    condition, bound = wanted
    seq, last = _range(connection, condition, bound, limit)
    while seq <= last:
        rows = connection.exec_driver_sql(
            f"SELECT {_COLUMNS} FROM events WHERE seq BETWEEN ? AND ? AND {condition} "
            "ORDER BY seq LIMIT ?",
            (seq, last, *bound, _CHUNK),
        ).all()
        for row in rows:
            yield StoredEvent(*row)
        if len(rows) < _CHUNK:
            return
        seq = rows[-1][0] + 1


def _range(
    connection: Connection, condition: str, bound: tuple[Any, ...], limit: int
) -> tuple[int, int]:
    """Return the first and last seq to read; an empty range if no event is selected."""
    if limit:
        query = (
            f"SELECT min(seq), max(seq) FROM (SELECT seq FROM events WHERE {condition} "
            "ORDER BY seq DESC LIMIT ?)"
        )
        first, last = connection.exec_driver_sql(query, (*bound, limit)).one()
    else:
        first, last = connection.exec_driver_sql("SELECT min(seq), max(seq) FROM events").one()
    return (1, 0) if last is None else (int(first), int(last))


_LAST_CHARACTER = "\U0010ffff"
_RUN_ID = (
    f"CASE WHEN type = '{CONVERSATION_STARTED}' AND json_valid(data) "
    "THEN json_extract(data, '$.run_id') END"
)
_SHOWN = 3
_SHORTEST_BEGINNING = 8
"""Fewer digits than these are a seq; more can be the beginning of an event id."""


class AmbiguousError(TrackerError):
    """The given text is the beginning of several ids."""


def complete(
    connection: Connection, column: Literal["event_id", "session_id", "run_id"], given: str
) -> str:
    """Return the stored id that equals `given` or, if unique, begins with it; otherwise `given`.

    Raises:
        AmbiguousError: if several ids begin with it.
    """
    expression = _RUN_ID if column == "run_id" else column
    found = [
        str(each)
        for each in connection.exec_driver_sql(
            f"SELECT DISTINCT {expression} AS id FROM events "
            f"WHERE {expression} = ? OR ({expression} >= ? AND {expression} < ?) "
            f"ORDER BY id LIMIT {_SHOWN}",
            (given, given, given + _LAST_CHARACTER),
        ).scalars()
    ]
    if given in found or not given or not found:
        return given
    if len(found) == 1:
        return found[0]
    raise AmbiguousError(
        f"several ids begin with {given!r}, such as {', '.join(found)}; give more of the id"
    )


_TRACE_ID = "CASE WHEN json_valid(trace) THEN json_extract(trace, '$.trace_id') END"
_TRACE_BEGINNING = "substr(trace, -34, 8)"
"""What the index of traces is of; see `schema.tables`."""


def complete_trace(connection: Connection, given: str) -> str | None:
    """Return the stored trace id that `given` is or, if unique, begins; None if there is none.

    Raises:
        AmbiguousError: if several ids begin with it.
    """
    given = given.lower()
    beginning = given[:8]
    select_ids = f"SELECT DISTINCT {_TRACE_ID} AS id FROM events WHERE "
    named = ("instr(trace, ?) > 0", '"trace_id":"' + given)
    by_index = (
        f"substr(trace, -5) <> 'true}}' AND {_TRACE_BEGINNING} >= ? AND {_TRACE_BEGINNING} < ?"
    )
    found: Sequence[str | None] = ()
    for condition, bound in (
        (f"{by_index} AND {named[0]}", (beginning, beginning + _LAST_CHARACTER, named[1])),
        (f"trace IS NOT NULL AND {named[0]}", (named[1],)),  # a turn without a span
    ):
        query = f"{select_ids}{condition} LIMIT {_SHOWN}"
        found = connection.exec_driver_sql(query, bound).scalars().all()
        if found:
            break
    if len(found) > 1:
        shown = ", ".join(map(str, found))
        raise AmbiguousError(
            f"several traces begin with {given!r}, such as {shown}; give more of the id"
        )
    return found[0] if found else None


def newest_trace(connection: Connection) -> str | None:
    """Return the id of the trace of the newest event that has one; None if there is none."""
    found: str | None = connection.exec_driver_sql(
        f"SELECT {_TRACE_ID} FROM events WHERE trace IS NOT NULL ORDER BY seq DESC LIMIT 1"
    ).scalar()
    return found


def find(connection: Connection, name: str) -> StoredEvent | None:
    """Return the event whose id or, if it is a number, seq is `name`; None if there is none.

    The beginning of an id is enough if it is unique.

    Raises:
        AmbiguousError: if several ids begin with it.
    """
    row = connection.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM events WHERE event_id = ?",
        (name,),
    ).first()
    if row is None and name.isascii() and name.isdecimal() and len(name) < 19:
        row = connection.exec_driver_sql(
            f"SELECT {_COLUMNS} FROM events WHERE seq = ?",
            (int(name),),
        ).first()
    is_seq = name.isdecimal() and len(name) < _SHORTEST_BEGINNING
    if row is None and not is_seq and (whole := complete(connection, "event_id", name)) != name:
        return find(connection, whole)
    return None if row is None else StoredEvent(*row)
