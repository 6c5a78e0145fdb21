"""Comparing the outbox with what the collector has of it."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from tracker import discards
from tracker.events import EVENTS_DISCARDED, Event
from tracker.outbox.integrity.chain import Problem
from tracker.outbox.schema import tables
from tracker.outbox.store import identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from sqlalchemy import Connection

    from tracker.discards import Range

_LOCAL = """
SELECT seq, event_id, digest, chain,
  CASE WHEN dead_code IS NULL THEN delivered_at_ms >= (SELECT created_at_ms FROM identity) END,
  CASE WHEN typeof(timestamp_ms) = 'integer' THEN max(timestamp_ms, 0) ELSE 0 END FROM events
WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?
"""
_DISCARDS = f"""
SELECT {tables.EVENT} FROM events
WHERE type = '{EVENTS_DISCARDED}' AND dead_at_ms IS NULL
"""
_END = 2**63 - 1


class Held(NamedTuple):
    """What the collector knows about one event."""

    seq: int
    event_id: str
    digest: str
    chain: str


class Collector(Protocol):
    """What a collector has of one outbox."""

    def after(self, seq: int) -> Sequence[Held]:
        """Return the next events after `seq`, in ascending order; nothing at the end.

        All events with the last seq are among them.
        """

    def elsewhere(self, digests: Mapping[str, str], first_ms: int, last_ms: int) -> Set[str]:
        """Return which events it has under another outbox of this client, with the same digest.

        Args:
            digests: The digests of the events, by their ids.
            first_ms: The time of the first one, Unix milliseconds.
            last_ms: The time of the last one.
        """

    def given_up(self) -> Sequence[Range]:
        """Return the seqs that are missing for a reason.

        These are refused events, and those that an ``events.discarded`` event names.
        """


class _Local(NamedTuple):
    seq: int
    event_id: str
    digest: str
    chain: str
    delivered: int | None
    timestamp_ms: int


class Comparison:
    """One comparison, page by page in seq order. It keeps a page and a chunk of rows in memory.

    The application continues meanwhile, so the collector is always asked before the outbox is
    read, and asked again about events that seem to be missing there.

    Args:
        connection: To the outbox, outside of any transaction.
        collector: What the collector has.
        chunk: How many rows of the outbox are read at a time.
    """

    def __init__(self, connection: Connection, collector: Collector, chunk: int = 4_000) -> None:
        self._connection = connection
        self._chunk = chunk
        self._collector = collector
        self._fetch = collector.after
        self._missing: list[Range] = []
        self._gap: tuple[int, int, str] = (0, -1, "")
        self.events = 0
        """How many of the collector's events were compared so far."""

    def problems(self) -> Iterator[Problem]:
        """Yield a problem for each event that one side has in another form or not at all.

        Pending and skipped events and dead letters may be missing at the collector, removed events
        may be missing here. What is missing on both sides was given up, or was delivered before
        this outbox replaced another one, under that one's id: an ``events.discarded`` event has to
        say so, at the collector or on its way there.

        If a copy of the outbox's file has sent events as well, the collector has other events under
        seqs of this outbox. Their kind is ``copy``. Somebody who changes the file could cause the
        same, so the message names both causes.
        """
        after = 0
        while page := self._fetch(after):
            yield from self._compare(after, page[-1].seq, page)
            after = page[-1].seq
            self.events += len(page)
        yield from self._compare(after, _END, ())
        yield from self._unexplained()

    def _compare(self, after: int, through: int, page: Sequence[Held]) -> Iterator[Problem]:
        theirs = {(held.seq, held.event_id): held for held in page}
        wanted = {held.seq for held in page}
        self._missing += discards.without(
            self._removed(after, through), discards.runs(sorted(wanted))
        )
        here = set()
        for rows in self._local(after, through):
            absent = []
            for row in rows:
                if row.seq in wanted:
                    here.add(row.seq)
                held = theirs.pop((row.seq, row.event_id), None)
                if held is not None:
                    yield from _differences(row, held)
                elif row.delivered:
                    absent.append(row)
                elif row.delivered is not None and row.seq not in wanted:
                    self._missing.append((row.seq, row.seq))
            for row in self._nowhere(list(self._still_absent(absent))):
                said = f"event {row.event_id} was delivered, but the collector does not have it"
                yield Problem(row.seq, "collector", said)
        for held in theirs.values():
            if held.seq in here:
                yield _of_a_copy(held)
            else:
                yield from self._check_removed(held)

    def _removed(self, after: int, through: int) -> list[Range]:
        """Return which of some seqs were removed here."""
        rows = self._connection.exec_driver_sql(
            "SELECT first_seq, last_seq FROM gaps WHERE last_seq > ? AND first_seq <= ? "
            "AND typeof(last_seq) = 'integer'",
            (after, through),
        )
        return discards.merged((max(a, after + 1), min(b, through)) for a, b in rows if a <= b)

    def _unexplained(self) -> Iterator[Problem]:
        """Yield a problem for what the collector never got and will not get, for no reason."""
        missing = discards.merged(self._missing)
        if missing:
            missing = discards.without(missing, discards.merged(self._collector.given_up()))
        if missing:
            missing = discards.without(missing, discards.merged(self._discarded()))
        for range_ in missing:
            for first, last in self._still_missing(*range_):
                shown = f"event {first} is" if first == last else f"events {first} to {last} are"
                said = "neither pending here nor at the collector, and no event says why"
                yield Problem(first, "collector", f"{shown} {said}")

    def _discarded(self) -> Iterator[Range]:
        """Yield what the outbox itself says it gave up, also if that is not sent yet."""
        own_id = identity.read(self._connection).outbox_id
        for row in self._connection.exec_driver_sql(_DISCARDS):
            event = Event(*row)
            if event.is_intact:
                said = discards.read(event.data)
                if said.outbox_id in (None, own_id):
                    yield from said.ranges

    def _still_missing(self, first: int, last: int) -> Iterator[Range]:
        """Yield what of a range the collector still does not have when it is asked again.

        It may have been sent, and removed here, since the collector was asked.
        """
        while first <= last:
            page = self._fetch(first - 1)
            here = [held.seq for held in page if held.seq <= last]
            end = last if not page or page[-1].seq > last else page[-1].seq
            yield from discards.without([(first, end)], discards.runs(here))
            first = end + 1

    def _local(self, after: int, through: int) -> Iterator[list[_Local]]:
        while rows := [
            _Local(*row)
            for row in self._connection.exec_driver_sql(_LOCAL, (after, through, self._chunk))
        ]:
            yield rows
            after = rows[-1].seq

    def _still_absent(self, rows: list[_Local]) -> Iterator[_Local]:
        """Yield those rows that the collector still does not have when it is asked again."""
        while rows:
            page = self._fetch(rows[0].seq - 1)
            known = {(held.seq, held.event_id) for held in page}
            end = page[-1].seq if page else _END
            yield from (row for row in rows if row.seq <= end and row[:2] not in known)
            rows = [row for row in rows if row.seq > end]

    def _nowhere(self, rows: list[_Local]) -> Iterator[_Local]:
        """Yield those rows that the collector has under no other outbox either.

        It drops what it has already: of a restored copy, what was pending in it and had arrived
        from the original is there under the original's id.
        """
        if not rows:
            return
        times = [row.timestamp_ms for row in rows]
        digests = {row.event_id: row.digest for row in rows}
        known = self._collector.elsewhere(digests, min(times), max(times))
        yield from (row for row in rows if row.event_id not in known)

    def _check_removed(self, held: Held) -> Iterator[Problem]:
        """Check an event that is not here: the tracker must have recorded its removal."""
        if not self._gap[0] <= held.seq <= self._gap[1]:
            found = self._connection.exec_driver_sql(
                "SELECT first_seq, last_seq, chain FROM gaps WHERE first_seq <= ? "
                "ORDER BY first_seq DESC LIMIT 1",
                (held.seq,),
            ).first()
            self._gap = (0, -1, "") if found is None else (found[0], found[1], found[2])
        first, last, chain = self._gap
        if first <= held.seq <= last:
            if held.seq == last and held.chain != chain:
                said = (
                    f"the collector has another chain value after the removed event {held.event_id}"
                )
                yield Problem(held.seq, "collector", said)
        else:
            said = (
                f"the collector has event {held.event_id}, but the outbox does not, or no longer: "
                "it was removed here, or a copy of the outbox's file has sent it"
            )
            yield Problem(held.seq, "collector", said)


def _of_a_copy(held: Held) -> Problem:
    return Problem(
        held.seq,
        "copy",
        f"the collector has event {held.event_id} under this seq, and the outbox has another one: "
        "a copy of the outbox's file has sent it, or it was replaced here. Make copies with "
        "`tracker-sync backup`, and new outboxes from them with `tracker-sync restore`",
    )


def _differences(row: _Local, held: Held) -> Iterator[Problem]:
    differing = [
        name
        for name, here, there in (
            ("digest", row.digest, held.digest),
            ("chain value", row.chain, held.chain),
        )
        if here != there
    ]
    if differing:
        said = f"event {row.event_id} has another {' and '.join(differing)} at the collector"
        yield Problem(row.seq, "collector", said)
