"""Metrics from roll-ups: those of `queries.metrics`, with percentiles at most one percent off."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, literal_column, not_, select, tuple_

from tracker.collector.rollups import histogram
from tracker.collector.rollups.fields import OF_AGENTS
from tracker.collector.rollups.partial import (
    CATEGORY,
    NUMBER,
    OUTCOME,
    QUALITY,
    RESPONSE_TIME,
    TOKENS_USED,
    TRUTH,
)
from tracker.collector.rollups.tables import rolled_figures, rolled_sessions, rolled_usage
from tracker.events import MESSAGE_LOGGED, TOOL_CALLED
from tracker.queries.conversations import ENDED, FAILED, OPEN
from tracker.queries.figures import DAY_MS
from tracker.queries.metrics import Metrics, ResponseTime
from tracker.queries.model_calls import model_calls
from tracker.queries.scores import ScoreSummary
from tracker.queries.source import in_period

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection, FromClause

    from tracker.collector.rollups.coverage import Covered
    from tracker.queries.filters import Filters

_FIRST_DAY, _END_DAY = 0, 2_932_897
"""Days with valid times: from 1970 to 9999."""
_BEST_SCORE = 5
_MOST_CATEGORIES = 100
_EXACT = 2**53


def get_metrics(
    connection: Connection, covered: Covered, wanted: Filters, events: FromClause
) -> Metrics:
    """Return metrics of a client's events that match, with those of each day."""
    days: dict[int, _Sums] = defaultdict(_Sums)
    whole = _Sums()
    for day, *row in connection.execute(_figures(covered, wanted)):
        for sums in (days[day], whole):
            sums.add(*row)
    for day, *row in connection.execute(_calls(covered.rows(rolled_usage, wanted))):
        for sums in (days[day], whole):
            sums.add_calls(*row)
    valid = in_period(events, _FIRST_DAY * DAY_MS, _END_DAY * DAY_MS)
    for call in model_calls(connection, events, [*valid, *wanted.conditions(events)]):
        for sums in (days[call.timestamp_ms // DAY_MS], whole):
            sums.add_calls(1, call.total_tokens, call.cost_usd, call.cost_usd is not None)
    for day, status, count in connection.execute(_alone(covered, wanted)):
        for sums in (days[day], whole):
            sums.statuses[status] += count
    for day, status, count in connection.execute(_shared(covered, wanted)):
        (whole if day is None else days[day]).statuses[status] += count
    agent_id, since_ms, until_ms = wanted.agent_id, wanted.since_ms, wanted.until_ms
    found = tuple(days[day].metrics(agent_id, *_limits(wanted, day)) for day in sorted(days))
    return replace(whole.metrics(agent_id, since_ms, until_ms), days=found)


def _limits(wanted: Filters, day: int) -> tuple[int, int]:
    start, end = day * DAY_MS, (day + 1) * DAY_MS
    return (
        start if wanted.since_ms is None else max(start, wanted.since_ms),
        end if wanted.until_ms is None else min(end, wanted.until_ms),
    )


def _valid(row: Any) -> Any:
    return row.day.between(_FIRST_DAY, _END_DAY - 1)


def _figures(covered: Covered, wanted: Filters) -> Any:
    row = covered.rows(rolled_figures, wanted).c
    mine = (_valid(row), row.kind.not_in(OF_AGENTS), row.of_all == (wanted.agent_id is None))
    keys = (row.day, row.kind, row.name, row.value, row.bucket)
    amount = func.sum(row.amount).label("amount")
    sums = [func.sum(row.total), func.min(row.least), func.max(row.most)]
    names = ("total", "least", "most")
    summed = (each.label(name) for name, each in zip(names, sums, strict=True))
    found = select(*keys, amount, *summed).where(*mine).group_by(*keys).subquery().c
    # A histogram is one row: of all buckets, there are many thousands.
    is_time = found.kind == _literal(RESPONSE_TIME)
    by = (found.day, found.kind, found.name, found.value, case((not_(is_time), found.bucket)))
    sums = [func.sum(found.amount), func.sum(found.total), func.min(found.least)]
    histogram_ = func.json_object_agg(found.bucket, found.amount).filter(is_time)
    return select(*by, *sums, func.max(found.most), histogram_).group_by(*by)


def _calls(rows: FromClause) -> Any:
    row = rows.c
    sums = [func.sum(row[name]) for name in ("calls", "total_tokens", "cost_usd", "priced")]
    return select(row.day, *sums).where(_valid(row)).group_by(row.day)


def _alone(covered: Covered, wanted: Filters) -> Any:
    """Return the query for how many sessions with one row have each status, by day.

    Most are such: on one day, of one agent. They count in total as they do there.
    """
    row, mine, shared = _sessions(covered, wanted)
    status = _status(row.opened_id, row.failed_id, row.ended_id)
    return (
        select(row.day, status, func.count()).where(*mine, not_(shared)).group_by(row.day, status)
    )


def _shared(covered: Covered, wanted: Filters) -> Any:
    """Return the query for the others, by day and in total, where the day is null."""
    row, mine, shared = _sessions(covered, wanted)
    status = _status(*map(func.max, (row.opened_id, row.failed_id, row.ended_id)))
    each = func.grouping_sets(tuple_(row.day, row.session_id), row.session_id)
    sessions = select(row.day, status.label("status")).where(*mine, shared).group_by(each)
    found = sessions.subquery().c
    return select(found.day, found.status, func.count()).group_by(found.day, found.status)


def _sessions(covered: Covered, wanted: Filters) -> tuple[Any, list[Any], Any]:
    row = covered.rows(rolled_sessions, wanted).c
    mine = [_valid(row), row.spoken > 0, row.session_id.is_not(None)]
    return row, mine, row.shared | row.session_id.in_(covered.new_sessions())


def _status(opened: Any, failed: Any, ended: Any) -> Any:
    # Literals, so that PostgreSQL sees the same expression in SELECT and GROUP BY.
    failure, end, other = (_literal(word) for word in (FAILED, ENDED, OPEN))
    return case((failed > opened, failure), (ended > opened, end), else_=other)


def _literal(word: str) -> ColumnElement[str]:
    return literal_column(f"'{word}'")


@dataclass
class _Scores:
    """The scores of one name."""

    numbers: int = 0
    total: Any = 0
    least: list[Any] = field(default_factory=list)
    most: list[Any] = field(default_factory=list)
    truths: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, value: str, count: int, total: Any, least: Any, most: Any) -> None:
        """Add a row of figures."""
        if kind == NUMBER:
            self.numbers += count
            self.total += total
            self.least.append(least)
            self.most.append(most)
        else:
            (self.truths if kind == TRUTH else self.categories)[value] += count

    def summary(self, name: str) -> ScoreSummary:
        """Return the summary."""
        booleans = self.truths.total()
        return ScoreSummary(
            name,
            name,
            self.numbers + booleans + self.categories.total(),
            self.numbers,
            _mean(self.total, self.numbers),
            _as_sent(min(self.least)) if self.least else None,
            _as_sent(max(self.most)) if self.most else None,
            booleans,
            self.truths["true"] / booleans if booleans else None,
            dict(self.categories.most_common(_MOST_CATEGORIES)),
        )


@dataclass
class _Sums:
    """What is counted of a day, or of the whole period."""

    statuses: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    totals: dict[str, Any] = field(default_factory=lambda: defaultdict(int))
    outcomes: Counter[str] = field(default_factory=Counter)
    times: Counter[int] = field(default_factory=Counter)
    qualities: Counter[int] = field(default_factory=Counter)
    calls: int = 0
    tokens: int = 0
    cost: Any = None
    priced: int = 0
    scores: dict[str, _Scores] = field(default_factory=lambda: defaultdict(_Scores))

    def add(self, kind: str, name: str, value: str, bucket: int, amount: Any, *more: Any) -> None:
        """Add a row of figures."""
        count, (*numbers, times) = int(amount), more
        total = numbers[0]
        if kind in (NUMBER, TRUTH, CATEGORY):
            self.scores[name].add(kind, value, count, *numbers)
            return
        self.counts[kind] += count
        self.totals[kind] += total or 0
        if kind == OUTCOME:
            self.outcomes[name] += count
        elif kind == RESPONSE_TIME:
            self.times.update({int(bucket): number for bucket, number in times.items()})
        elif kind == QUALITY:
            self.qualities[bucket] += count

    def add_calls(self, calls: Any, tokens: Any, cost: Any, priced: Any) -> None:
        """Add model calls."""
        self.calls += int(calls)
        self.tokens += int(tokens or 0)
        self.priced += int(priced)
        if cost is not None:
            self.cost = (self.cost or 0) + Fraction(cost)

    def metrics(self, agent_id: str | None, since_ms: int | None, until_ms: int | None) -> Metrics:
        """Return the metrics."""
        status = self.statuses
        over = status[ENDED] + status[FAILED]
        times, qualities = self.counts[RESPONSE_TIME], self.counts[QUALITY]
        return Metrics(
            agent_id=agent_id,
            since_ms=since_ms,
            until_ms=until_ms,
            conversations=status.total(),
            ended=status[ENDED],
            failed=status[FAILED],
            open=status[OPEN],
            success_rate=status[ENDED] / over if over else None,
            outcomes=dict(sorted(self.outcomes.items())),
            messages=self.counts[MESSAGE_LOGGED],
            tool_calls=self.counts[TOOL_CALLED],
            tokens_used=int(self.totals[TOKENS_USED]),
            response_time=ResponseTime(
                times,
                _mean(self.totals[RESPONSE_TIME], times),
                *histogram.percentiles(self.times, (50, 95, 99)),
            )
            if times
            else ResponseTime(),
            quality_count=qualities,
            quality_mean=_mean(self.totals[QUALITY], qualities),
            quality_distribution={
                score: self.qualities[score] for score in range(1, _BEST_SCORE + 1)
            },
            llm_calls=self.calls,
            llm_tokens=self.tokens,
            cost_usd=None if self.cost is None else float(self.cost),
            unpriced=self.calls - self.priced,
            scores=tuple(self.scores[name].summary(name) for name in sorted(self.scores)),
        )


def _as_sent(number: Decimal) -> float:
    """Return a number as JSON has it, with or without a point."""
    whole = number.as_tuple().exponent == 0 and abs(number) < _EXACT
    return int(number) if whole else float(number)


def _mean(total: Any, count: int) -> float | None:
    return float(Fraction(total) / count) if count else None
