"""`Outbox`: what goes into a bundle of evidence, out of what the collector has of one outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from tracker import canonical
from tracker.collector import outbox_keys
from tracker.collector.refusal import RefusedError
from tracker.collector.seals import unpacked
from tracker.collector.tables import checkpoints, events
from tracker.erasure import named_events
from tracker.events import COMPLIANCE_ERASED, EVENTS_DISCARDED, INTEGRITY_KEY_CHANGED
from tracker.evidence import contents
from tracker.evidence.contents import USER, Contents, Head
from tracker.evidence.verifier import parse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from tracker.collector.settings import Settings
    from tracker.collector.stored_tree import StoredTree
    from tracker.collector.witness import Witness

_FETCH_ROWS = 100
_EXPLAINING = (COMPLIANCE_ERASED, EVENTS_DISCARDED, INTEGRITY_KEY_CHANGED)
_COLUMNS = ("seq", "event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id",
            "digest", "data", "context", "trace", "seal")  # fmt: skip


class Selection(NamedTuple):
    """Which events are asked for.

    Attributes:
        named: As a bundle says it.
        wanted: The conditions in the database.
    """

    named: dict[str, Any]
    wanted: tuple[ColumnElement[bool], ...]

    @classmethod
    def of(
        cls,
        session_id: str | None,
        seqs: tuple[int | None, int | None],
        period: tuple[int | None, int | None],
    ) -> Selection:
        """Return the one selection that was given.

        Raises:
            RefusedError: 422 if it was none, or several.
        """
        given = [session_id is not None, seqs != (None, None), period != (None, None)]
        if sum(given) != 1 or (given[1] and None in seqs):
            raise _invalid(
                "Give either session_id, or first_seq and last_seq, or since, until or both."
            )
        if session_id is not None:
            return cls(contents.session(session_id), (events.c.session_id == session_id,))
        first, last = seqs
        if first is not None and last is not None:
            return cls(contents.seqs(first, last), (events.c.seq.between(first, last),))
        since, until = period
        wanted = []
        if since is not None:
            wanted.append(events.c.timestamp_ms >= since)
        if until is not None:
            wanted.append(events.c.timestamp_ms < until)
        return cls(contents.period(since, until), tuple(wanted))


class _Cosigned(NamedTuple):
    """A cosigned head and its time stamp, if it has one."""

    size: int
    note: str
    timestamp: bytes | None

    @property
    def head(self) -> Head:
        return Head(self.note, self.timestamp)


class Outbox:
    """One outbox, read within one transaction.

    Args:
        connection: The transaction.
        client_id: Its client.
        outbox_id: Its id.
        witness: Who cosigns here, if anybody.
    """

    def __init__(
        self, connection: Connection, client_id: str, outbox_id: str, witness: Witness | None
    ) -> None:
        self._connection = connection
        self._outbox_id = outbox_id
        self._witness = witness
        self._mine = (events.c.client_id == client_id, events.c.outbox_id == outbox_id)
        self._heads = (
            checkpoints.c.client_id == client_id,
            checkpoints.c.outbox_id == outbox_id,
            checkpoints.c.state == "cosigned",
        )

    def contents(
        self,
        selection: Selection,
        tree: StoredTree,
        settings: Settings,
        *,
        complete: bool,
        withhold: str | None,
    ) -> Contents:
        """Return what goes into a bundle of these events, under the newest cosigned head.

        Raises:
            RefusedError: 404 if no head covers any such event, 422 if there are too many.
        """
        head = self._head(checkpoints.c.size.desc())
        if head is None:
            raise _not_found("No head of this outbox has been cosigned.")
        named = selection.named
        if named.get("last_seq", 0) > head.size:
            raise _not_found(f"The newest cosigned head covers seq 1 to {head.size}.")
        under = events.c.seq <= head.size
        room = _Room(settings.max_evidence_events, settings.max_page_bytes)
        shown = self._rows((under, *selection.wanted), tree, room)
        if not shown:
            raise _not_found("No such event is under a cosigned head yet.")
        first, last = shown[0].seq, shown[-1].seq
        if complete:
            numbers = named.get("last_seq", last) - named.get("first_seq", first) + 1
            room.take(numbers - len(shown), 0)
        removals = self._rows(
            (under, events.c.type.in_(_EXPLAINING)), tree, room, _explaining(shown)
        )
        return Contents(
            head.head,
            named,
            [_as_sent(row) for row in shown],
            removals=[_as_sent(row) for row in removals],
            complete=complete,
            withhold=frozenset({USER} if withhold == "user" else ()),
            older=[each.head for each in self._older(last, head)],
            keys=self._keys(),
        )

    def _rows(
        self,
        wanted: tuple[ColumnElement[bool], ...],
        tree: StoredTree,
        room: _Room,
        belongs: Callable[[Row[Any]], bool] = lambda _: True,
    ) -> list[Row[Any]]:
        """Return events in order of seq; of those with one number, the one received first."""
        query = (
            select(*(events.c[name] for name in _COLUMNS))
            .where(*self._mine, *wanted)
            .order_by(events.c.seq, events.c.id)
            .execution_options(yield_per=_FETCH_ROWS)
        )
        found: dict[int, Row[Any]] = {}
        with self._connection.execute(query) as result:
            for row in result:
                if row.seq not in found and not tree.is_unknown(row.seq) and belongs(row):
                    room.take(1, len(row.data))
                    found[row.seq] = row
        return list(found.values())

    def _head(self, order: ColumnElement[Any], *wanted: ColumnElement[bool]) -> _Cosigned | None:
        columns = (checkpoints.c.size, checkpoints.c.note, checkpoints.c.timestamp)
        query = (
            select(*columns)
            .where(*self._heads, *wanted)
            .order_by(order, checkpoints.c.timestamp.is_(None), checkpoints.c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(query).first()
        return None if row is None else _Cosigned(*row)

    def _older(self, last: int, head: _Cosigned) -> list[_Cosigned]:
        """Return the first head over the events, and the first of those with a time stamp."""
        covering = (checkpoints.c.size >= last, checkpoints.c.size < head.size)
        stamped = checkpoints.c.timestamp.is_not(None)
        found = (self._head(checkpoints.c.size, *covering),
                 self._head(checkpoints.c.size, *covering, stamped))  # fmt: skip
        return list({each.size: each for each in found if each is not None}.values())

    def _keys(self) -> list[Any]:
        bound = outbox_keys.history(self._connection, self._outbox_id)
        keys = [parse_key(each.key) for each in bound]
        return keys if self._witness is None else [*keys, self._witness.key]


def _explaining(shown: Sequence[Row[Any]]) -> Callable[[Row[Any]], bool]:
    """Return what says whether an event is not shown, and tells why something is missing of those.

    Erasures do if they name an event that is shown; key changes and lost ranges always do.
    """
    seqs = {row.seq for row in shown}
    erased = {row.event_id.lower() for row in shown if row.data.rstrip(" ") == canonical.ERASED}

    def explains(row: Row[Any]) -> bool:
        if row.type == COMPLIANCE_ERASED and erased.isdisjoint(
            map(str.lower, named_events(row.data))
        ):
            return False
        return row.seq not in seqs

    return explains


def _as_sent(row: Row[Any]) -> dict[str, Any]:
    """Return an event as the protocol sends it, without `chain`."""
    event = {name: getattr(row, name) for name in _COLUMNS[:8]}
    event["data"] = canonical.decode(row.data.rstrip(" "))
    for name in ("context", "trace"):
        if (text := getattr(row, name)) is not None:
            event[name] = canonical.decode(text)
    for name, value in zip(("salt", "sealed"), unpacked(row.seal), strict=True):
        if value is not None:
            event[name] = value.hex()
    return event


class _Room:
    """How much more may go into a bundle."""

    def __init__(self, events: int, characters: int) -> None:
        self._most = self._events = events
        self._characters = characters

    def take(self, events: int, characters: int) -> None:
        """Take room.

        Raises:
            RefusedError: 422 if there is no more.
        """
        self._events -= events
        self._characters -= characters
        if self._events < 0 or self._characters < 0:
            raise _invalid(
                f"This selects more than {self._most:,} events, or too much data: ask for less."
            )


def _not_found(message: str) -> RefusedError:
    return RefusedError(404, "not_found", message)


def _invalid(message: str) -> RefusedError:
    return RefusedError(422, "invalid_query", message)
