"""``verify``: is everything stored as it was written, and is nothing missing?"""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tracker import canonical, time_ranges
from tracker.erasure import ERASED
from tracker.events import Event
from tracker.outbox.integrity import chain_key
from tracker.outbox.integrity.chain import Links, Problem, Unproven
from tracker.outbox.integrity.proofs import Proofs
from tracker.outbox.schema import tables
from tracker.outbox.store import identity, ledger
from tracker.outbox.store.erasures import Erasures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

_MOST_PROBLEMS = 1_000
_SENSELESS = """
SELECT first_seq FROM gaps WHERE typeof(last_seq) != 'integer' OR last_seq < first_seq
"""


@dataclass(frozen=True)
class IntegrityReport:
    """The result of `verify`. Sound if `problems` is empty; proven if `unproven` is empty too.

    Attributes:
        events: How many stored events were checked.
        first_seq: The lowest seq among them, or None.
        last_seq: The newest seq ever assigned.
        removed: Events removed on purpose (delivered and pruned, or discarded).
        problems: What is wrong, at most 1,000 problems.
        unproven: Events without a problem that could not be checked: chained or removed with a key
            that was not given, or without one, or carried over from a damaged outbox whose chain
            did not prove them.
    """

    events: int
    first_seq: int | None
    last_seq: int
    removed: int
    problems: tuple[Problem, ...]
    unproven: tuple[Unproven, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def proven(self) -> bool:
        """Whether everything was checked and is right."""
        return self.ok and not self.unproven


def verify(connection: Connection, keys: Sequence[bytes] = ()) -> IntegrityReport:
    """Check every digest, the chain, the gaps in seq and the account, in one snapshot.

    Args:
        connection: To the outbox.
        keys: The known chain keys, as for `Links`. Without the key that a chain was made with,
            only digests, gaps and account are checked.
    """
    connection.exec_driver_sql("BEGIN")
    report = check(connection, keys)
    connection.exec_driver_sql("ROLLBACK")  # after an error, the connection's owner closes it
    return report


def check(connection: Connection, keys: Sequence[bytes] = ()) -> IntegrityReport:
    """Check as `verify` does, in the caller's transaction."""
    memory = chain_key.read(connection)
    proofs = Proofs(keys, memory, identity.read(connection).outbox_id)
    walk = _Walk(connection, Links(keys, memory), proofs)
    found = itertools.chain(
        _file_problems(connection),
        walk.problems(),
        walk.account_problems(),
        _account_problems(connection),
    )
    problems = tuple(itertools.islice(found, _MOST_PROBLEMS))
    return IntegrityReport(
        walk.events,
        walk.first_seq,
        ledger.last_seq(connection),
        sum(gap.last - first + 1 for first, gap in walk.gaps.items()),
        problems,
        tuple(sorted(walk.unproven, key=lambda events: events.first_seq)),
    )


class Gap(NamedTuple):
    """A record of the removal of events, without their first seq.

    Attributes:
        last: The last seq that was removed.
        chain: The chain value there.
        proof: The proof that a process with the chain key removed them, or None.
    """

    last: int
    chain: str
    proof: str | None


def read_gaps(connection: Connection) -> dict[int, Gap]:
    """Return the recorded gaps by their first seq."""
    return {
        first: Gap(last, chain, proof)
        for first, last, chain, proof in connection.exec_driver_sql(
            "SELECT first_seq, last_seq, chain, proof FROM gaps "
            "WHERE typeof(last_seq) = 'integer' ORDER BY first_seq"
        )
        if last >= first  # one that was edited by hand may end before it begins
    }


class _Walk:
    """One pass over the events in seq order, together with the recorded gaps."""

    def __init__(self, connection: Connection, links: Links, proofs: Proofs) -> None:
        self._connection = connection
        self._links = links
        self._proofs = proofs
        self.gaps = read_gaps(connection)
        self._unused = dict(self.gaps)
        self._erasures = Erasures(connection)
        self._times = time_ranges.read(connection)
        self.events = 0
        self.first_seq: int | None = None
        self._seq = 0
        self._chain: str | None = canonical.GENESIS
        self._doubts: list[Unproven] = []

    @property
    def unproven(self) -> list[Unproven]:
        """What could not be checked."""
        return [*self._links.unproven, *self._doubts]

    def problems(self) -> Iterator[Problem]:
        rows = self._connection.exec_driver_sql(
            f"SELECT seq, {tables.EVENT}, chain FROM events ORDER BY seq"
        )
        for seq, *fields, chain in rows:
            event = Event(*fields)
            self.events += 1
            self.first_seq = seq if self.first_seq is None else self.first_seq
            yield from self._skip_to(seq)
            if event.sealed is not None or not event.is_intact:
                yield from self._changed(seq, event)
            yield from self._check_time(seq, event)
            if self._chain is not None:
                yield from self._links.check(seq, event.event_id, self._chain, event.digest, chain)
            self._seq, self._chain = seq, chain
        yield from self._skip_to(None)
        yield from self._links.end()
        yield from self._odd_gaps()

    def _odd_gaps(self) -> Iterator[Problem]:
        """Report records of removals that nothing is missing for: only a hand writes such."""
        for first, gap in self._unused.items():
            said = f"events {first} to {gap.last} are recorded as removed, but some are here"
            yield Problem(first, "gap", said)
        for (first,) in self._connection.exec_driver_sql(_SENSELESS):
            said = f"a removal from seq {first} on is recorded that has no end after it"
            yield Problem(first, "gap", said)

    def account_problems(self) -> Iterator[Problem]:
        """Check that the account is proven, unless the newest event is not anyway."""
        last = ledger.last_seq(self._connection)
        proof = self._connection.exec_driver_sql(
            "SELECT proof FROM account WHERE entry = ?", (ledger.STORED,)
        ).scalar()
        entries = self._connection.exec_driver_sql(ledger.ENTRIES)
        statement = list(itertools.chain.from_iterable(entries))
        found = self._proofs.account(statement, proof, last)
        if isinstance(found, Problem):
            yield found
        elif found and not any(events.last_seq == last for events in self.unproven):
            self._doubts.append(found)

    def _check_time(self, seq: int, event: Event) -> Iterator[Problem]:
        """Check that lists and figures of the event's time find it; one problem for each range."""
        while self._times and seq > self._times[-1][0]:
            self._times.pop()
        if not self._times:
            return
        last, earliest, latest = self._times[-1]
        time: object = event.timestamp_ms
        if isinstance(time, int) and not _is_between(time, earliest, latest):
            self._times.pop()
            said = f"the index of times is wrong for the events from {seq} to {last}"
            yield Problem(seq, "times", said)

    def _changed(self, seq: int, event: Event) -> Iterator[Problem]:
        """Distinguish erased events, which an erasure event names, from tampering.

        Of one that had a salt, everything but user and data can still be checked.
        """
        event_id = event.event_id
        left = event.data == ERASED and event.salt is None
        if not left or (event.sealed is not None and not event.is_intact):
            yield Problem(seq, "digest", f"event {event_id} is not what was stored")
        elif not self._erasures.name(event):
            yield Problem(
                seq, "erasure", f"event {event_id} is marked as erased, but no erasure names it"
            )

    def _skip_to(self, seq: int | None) -> Iterator[Problem]:
        """Skip removed events up to `seq`; any other missing event is a problem.

        None stands for the end, after the newest seq that was assigned.
        """
        while self._seq + 1 in self.gaps and self._seq + 1 != seq:
            yield from self._skip_gap(self._seq + 1)
        expected = ledger.last_seq(self._connection) + 1 if seq is None else seq
        if self._seq + 1 != expected:
            first, last = self._seq + 1, expected - 1
            shown = f"event {first} is" if first == last else f"events {first} to {last} are"
            yield Problem(first, "gap", f"{shown} missing and were not removed by the tracker")
            self._chain = None

    def _skip_gap(self, first: int) -> Iterator[Problem]:
        gap = self.gaps[first]
        self._unused.pop(first, None)
        found = self._proofs.gap(first, *gap)
        if isinstance(found, Problem):
            yield found
        elif found:
            self._doubts.append(found)
        self._seq, self._chain = gap.last, gap.chain


def _is_between(time: int, earliest: int | None, latest: int | None) -> bool:
    return earliest is not None and latest is not None and earliest <= time <= latest


def _file_problems(connection: Connection) -> Iterator[Problem]:
    """Ask SQLite whether the file is sound: rows can be, that no index leads to any more."""
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if said != "ok":
        yield Problem(None, "file", f"SQLite finds the file damaged: {said}")


def _account_problems(connection: Connection) -> Iterator[Problem]:
    book = ledger.read(connection)
    pending, dead, settled, both = connection.exec_driver_sql(
        f"SELECT coalesce(sum({tables.PENDING}), 0), "
        "coalesce(sum(dead_at_ms IS NOT NULL), 0), "
        f"coalesce(sum({tables.PENDING} AND seq <= "
        "(SELECT settled_through FROM sync_state)), 0), "
        "coalesce(sum(delivered_at_ms IS NOT NULL AND dead_at_ms IS NOT NULL), 0) FROM events"
    ).one()
    for name, booked, counted in (("pending", book.pending, pending), ("dead", book.dead, dead)):
        if booked != counted:
            yield Problem(
                None, "account", f"the account has {booked} events as {name}, but {counted} are"
            )
    if settled:
        yield Problem(None, "account", f"{settled} pending events are where none should be")
    if both:
        yield Problem(None, "account", f"{both} events are marked both as delivered and as dead")
