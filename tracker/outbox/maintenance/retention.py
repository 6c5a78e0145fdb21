"""What is removed from the outbox: delivered events after their time, and by the size policy.

Everything here works in small jobs of at most `CHUNK` rows, so that no logging call waits long for
one.
"""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import time
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from tracker import log
from tracker.clock import monotonic
from tracker.events import COMPLIANCE_ERASED as _ERASURE
from tracker.events import EVENTS_DISCARDED, make_event
from tracker.once import Once
from tracker.outbox.schema import tables
from tracker.outbox.store import discards, gaps, ledger
from tracker.outbox.store import erasures as named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

CHUNK = 200
_GIVE_BACK_SECONDS = 0.02
"""How long a job that returns pages may hold the write lock."""

EVERY = "*"
"""The pattern for types that match no other pattern."""

RETENTION_APPLIED = "retention.applied"
"""Type of the event that reports what a round removed."""

_DAY_MS = 86_400_000
_START_OVER_SECONDS = 86_400.0
_MOST_TYPES = 1_000


class RunJob(Protocol):
    """Type of `Outbox.run`: runs a write job and returns its result."""

    def __call__(self, job: Callable[[Transaction], T]) -> T:
        """Run `job`."""


def governing(patterns: Collection[str], type: str) -> str:
    """Return the pattern that decides how long events of a type are kept: the closest match.

    A type's own name is closer than any pattern, and a longer pattern is closer than a shorter one.
    """
    if type in patterns:
        return type
    fitting = [each for each in patterns if each.endswith("*") and type.startswith(each[:-1])]
    return max(fitting, key=len, default=EVERY)


class Retention:
    """Rounds of pruning. Belongs to one outbox; only one thread at a time runs a round.

    Events are delivered in the order of seq, so the events of one pattern are past their time up to
    some seq, and the next round begins there: it does not read again what is kept longer. Once a
    day a round begins at the start, for the few events that were skipped: dead letters that were
    sent later.

    Nothing is removed while the wall clock shows a time before the creation of the outbox or the
    last delivery: then it is wrong, and its times cannot be compared with those stored.

    Args:
        days: Days to keep delivered events, by pattern.
    """

    def __init__(self, days: Mapping[str, float]) -> None:
        self._logged = Once()
        self._days = dict(days)
        self._reached: dict[tuple[str, float], int] = {}
        self._start_over_at = 0.0

    def days(self, other_days: float) -> dict[str, float]:
        """Return the days by pattern, where types that match no pattern stay for `other_days`."""
        return {EVERY: other_days, **self._days}

    def round(self, run: RunJob, other_days: float) -> Counter[str]:
        """Remove the events that are past their time; return how many of each type.

        Args:
            run: Runs a write job, `Outbox.run`.
            other_days: Days to keep types that match no pattern.
        """
        if monotonic() >= self._start_over_at:
            self._start_over_at = monotonic() + _START_OVER_SECONDS
            self._reached.clear()
        if run(_clock_is_behind):
            if self._logged.is_new("clock"):
                log.warning(
                    "nothing is pruned: the clock shows a time before the creation of the outbox "
                    "or the last delivery"
                )
            return Counter()
        self._logged.forget()
        now_ms = _now_ms()
        removed: Counter[str] = Counter()
        days = self.days(other_days)
        for pattern in days:
            key, before_ms = (pattern, days[pattern]), now_ms - int(days[pattern] * _DAY_MS)
            after, first_passed = self._reached.get(key, 0), None
            concerns, more = _governed_by(pattern, days), True
            while more:
                pruned = run(prune(concerns, before_ms, after))
                removed.update(pruned.removed)
                after, more = pruned.after, pruned.more
                first_passed = pruned.passed if first_passed is None else first_passed
            self._reached[key] = after if first_passed is None else first_passed - 1
        return removed


def _clock_is_behind(transaction: Transaction) -> bool:
    last_known_ms = transaction.connection.exec_driver_sql(
        "SELECT max(identity.created_at_ms, coalesce(sync_state.last_success_ms, 0)) "
        "FROM identity, sync_state"
    ).scalar_one()
    return bool(_now_ms() < last_known_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _governed_by(pattern: str, patterns: Collection[str]) -> Callable[[str], bool]:
    return cache(lambda type_: governing(patterns, type_) == pattern)


class Pruned(NamedTuple):
    """What a pruning job did.

    Attributes:
        removed: How many events of each type it removed.
        after: The seq after which the next job continues.
        more: Whether there is anything left to prune, before the first event that is to be kept.
        passed: The first seq that was skipped and has to be checked again, or None.
    """

    removed: Mapping[str, int]
    after: int
    more: bool
    passed: int | None = None


def prune(
    concerns: Callable[[str], bool], delivered_before_ms: int, after: int = 0
) -> Callable[[Transaction], Pruned]:
    """Return the job that removes delivered events among the next `CHUNK` rows after seq `after`.

    Nothing after the first pending event is checked, because hardly any of it is delivered. An
    event with a delivery time in the future, from a clock that was wrong, counts as delivered now.
    Erasure events are kept as long as any event that they name.

    Args:
        concerns: Returns True for the types to remove.
        delivered_before_ms: Remove only events delivered before then.
        after: The seq after which to begin.
    """

    def job(transaction: Transaction) -> Pruned:
        connection = transaction.connection
        rows = connection.exec_driver_sql(
            "SELECT seq, chain, type, delivered_at_ms, dead_at_ms FROM events "
            "WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, CHUNK),
        ).all()
        now = _now_ms()
        old: list[tuple[int, str, str]] = []
        reached, more = after, len(rows) == CHUNK
        early: list[int] = []
        for seq, chain, type_, delivered_at_ms, dead_at_ms in rows:
            if delivered_at_ms is None and dead_at_ms is None:
                more = False
                break
            if delivered_at_ms is not None and concerns(type_):
                if delivered_at_ms < delivered_before_ms:
                    old.append((seq, chain, type_))
                elif delivered_at_ms > now:
                    early.append(seq)
                else:
                    more = False
                    break
            reached = seq
        for seq in early:
            connection.exec_driver_sql(
                "UPDATE events SET delivered_at_ms = ? WHERE seq = ?", (now, seq)
            )
        needed = _remove(transaction, old)
        removed = Counter(type_ for seq, _, type_ in old if seq not in needed)
        return Pruned(removed, reached, more, min([*early, *needed], default=None))

    return job


def _remove(transaction: Transaction, rows: list[tuple[int, str, str]]) -> set[int]:
    """Remove events given as (seq, chain, type), except for erasure events that are needed."""
    gaps.remove(transaction, [(seq, chain) for seq, chain, type_ in rows if type_ != _ERASURE])
    # Only now, because the events that they name may have been among the others.
    erasures = [(seq, chain) for seq, chain, type_ in rows if type_ == _ERASURE]
    needed = named.still_needed(transaction.connection, [seq for seq, _ in erasures])
    gaps.remove(transaction, [row for row in erasures if row[0] not in needed])
    return needed


def report(removed: Counter[str], days: Mapping[str, float]) -> Callable[[Transaction], int]:
    """Return the job that logs what a round removed, and the days by pattern that it kept to."""
    counts = dict(removed.most_common(_MOST_TYPES))
    if rest := removed.total() - sum(counts.values()):
        counts["other"] = rest
    event = make_event(RETENTION_APPLIED, {"removed": counts, "days": dict(days)})
    return lambda transaction: transaction.append(event)


def free_delivered(after: int) -> Callable[[Transaction], tuple[int, int]]:
    """Return the job that removes `CHUNK` delivered events after seq `after`, whatever their age.

    The job returns how many it removed, and the seq after which to continue, or -1 at the end.
    """

    def job(transaction: Transaction) -> tuple[int, int]:
        connection = transaction.connection
        rows = connection.exec_driver_sql(
            "SELECT seq, chain, type FROM events WHERE seq > ? AND delivered_at_ms IS NOT NULL "
            "ORDER BY seq LIMIT ?",
            (after, CHUNK),
        ).all()
        needed = _remove(transaction, [(seq, chain, type_) for seq, chain, type_ in rows])
        return len(rows) - len(needed), rows[-1][0] if len(rows) == CHUNK else -1

    return job


def discard_oldest(transaction: Transaction) -> int:
    """Give up the `CHUNK` oldest pending events, and count them under the size policy.

    An ``events.discarded`` event names them to the receiver. It takes less room than they did,
    unless there was only such an event left to give up: then nothing is.

    Erasure events are never given up: the receiver has to learn of them.
    """
    rows = transaction.connection.exec_driver_sql(
        "SELECT seq, chain, type FROM events "
        "WHERE seq > (SELECT settled_through FROM sync_state) "
        f"AND {tables.PENDING} AND type != 'compliance.erased' "
        "ORDER BY seq LIMIT ?",
        (CHUNK,),
    ).all()
    if all(type_ == EVENTS_DISCARDED for _, _, type_ in rows):
        return 0
    return discards.discard(transaction, ledger.BY_SIZE, [(s, c, t) for s, c, t in rows])


def give_back_pages(transaction: Transaction) -> None:
    """Return some free pages to the file system, so that the file shrinks."""
    # The pragma frees one page a step, and sqlite3 takes only one step of a statement that returns
    # no columns, however many pages were asked for.
    end = monotonic() + _GIVE_BACK_SECONDS  # each step may be slow, and calls wait meanwhile
    for _ in range(CHUNK):
        if monotonic() >= end:
            return
        transaction.connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")


def used_bytes(connection: Connection) -> int:
    """Return how many bytes the outbox's pages use, without those free for reuse."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return int((pages - free) * size)
