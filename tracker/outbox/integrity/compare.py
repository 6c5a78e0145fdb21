"""Comparing the outbox with what the collector has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracker.outbox.integrity.chain import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

_LOCAL = """
SELECT seq, event_id, digest, chain,
  delivered_at_ms >= (SELECT created_at_ms FROM identity) FROM events
WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?
"""
_END = 2**63 - 1


class Held(NamedTuple):
    """What the collector knows about one event."""

    seq: int
    event_id: str
    digest: str
    chain: str


class _Local(NamedTuple):
    seq: int
    event_id: str
    digest: str
    chain: str
    delivered: int | None


class Comparison:
    """One comparison, page by page in seq order. It keeps a page and a chunk of rows in memory.

    The application continues meanwhile, so the collector is always asked before the outbox is
    read, and asked again about events that seem to be missing there.

    Args:
        connection: To the outbox, outside of any transaction.
        fetch: Returns the collector's next events after a seq, in ascending order, including all
            events with the last seq; nothing at the end.
        chunk: How many rows of the outbox are read at a time.
    """

    def __init__(
        self, connection: Connection, fetch: Callable[[int], Sequence[Held]], chunk: int = 4_000
    ) -> None:
        self._connection = connection
        self._chunk = chunk
        self._fetch = fetch
        self._gap: tuple[int, int, str] = (0, -1, "")
        self.events = 0
        """How many of the collector's events were compared so far."""

    def problems(self) -> Iterator[Problem]:
        """Yield a problem for each event that one side has in another form or not at all.

        Pending events and dead letters may be missing at the collector, removed events may be
        missing here. So may events that were delivered before this outbox replaced a damaged one:
        the collector has them under that one's id.

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

    def _compare(self, after: int, through: int, page: Sequence[Held]) -> Iterator[Problem]:
        theirs = {(held.seq, held.event_id): held for held in page}
        wanted = {held.seq for held in page}
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
            for row in self._still_absent(absent):
                said = f"event {row.event_id} was delivered, but the collector does not have it"
                yield Problem(row.seq, "collector", said)
        for held in theirs.values():
            if held.seq in here:
                yield _of_a_copy(held)
            else:
                yield from self._check_removed(held)

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
