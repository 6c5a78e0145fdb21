"""Metrics of all conversations in a period, in total and per day or hour."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, select

from tracker.events import CONVERSATION_ENDED, MESSAGE_LOGGED, TOOL_CALLED
from tracker.queries import conversations
from tracker.queries.conversations import ENDED, FAILED, LIFECYCLE, LLM_USED, OPEN
from tracker.queries.figures import DAY_MS, HOUR_MS, figure, known_sum, tokens
from tracker.queries.filters import EVERYTHING
from tracker.queries.model_calls import calls_in_slices
from tracker.queries.scores import TYPES as SCORES
from tracker.queries.scores import ScoreSummary, Tally
from tracker.queries.slices import Slices
from tracker.queries.source import EVENTS, in_period, number_field, text_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause

    from tracker.queries.filters import Filters

# Valid times: 1970 to 9999. That of a damaged row may be outside, or not a number: the comparison
# with both limits excludes such rows.
_FIRST_MS = 0
_END_MS = 253_402_300_800_000

_BEST_SCORE = 5
_WORK = (MESSAGE_LOGGED, TOOL_CALLED, LLM_USED, *SCORES)

DAY, HOUR = "day", "hour"
STEPS = {DAY: DAY_MS, HOUR: HOUR_MS}
"""The steps for which metrics can be had, and their milliseconds."""


@dataclass(frozen=True)
class ResponseTime:
    """Response times of agents in milliseconds; None if nothing was measured.

    Percentiles are nearest-rank: the smallest measured value that at least so many percent of
    the measured values do not exceed. So each is a value that was logged.

    Attributes:
        count: Number of messages with a response time.
        mean_ms: The mean.
        p50_ms: The median.
        p95_ms: The 95th percentile.
        p99_ms: The 99th percentile.
    """

    count: int = 0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True)
class Metrics:
    """Metrics of the events in a period.

    Attributes:
        agent_id: The agent; None for all agents.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
        conversations: Number of conversations with a start, resumption, end, failure, message or
            tool call in the period. The sum of the following three.
        ended: Number of conversations that ended successfully by the end of the period.
        failed: Number of failed conversations: a failure was recorded, or they ended with the
            outcome ``"failure"``, ``"failed"`` or ``"error"``, and were not resumed.
        open: Number of the other conversations.
        success_rate: ``ended / (ended + failed)``, from 0.0 to 1.0; None if both are 0. Open
            conversations and quality scores do not count.
        outcomes: Number of ends by outcome.
        messages: Number of messages.
        tool_calls: Number of tool calls.
        tokens_used: Sum of the `tokens_used` of messages.
        response_time: Response times of messages.
        quality_count: Number of ends with a quality score.
        quality_mean: Mean quality score; None if there is none.
        quality_distribution: Number of scores nearest to 1, 2, 3, 4 and 5; halves are rounded up.
        llm_calls: Number of model calls, those that OpenTelemetry recorded included.
        llm_tokens: Sum of the `total_tokens` of model calls, separate from `tokens_used` because
            both may be logged for the same answer.
        cost_usd: Cost in US dollars of model calls, as far as known; None if none is known.
        unpriced: Number of model calls whose cost is unknown and not in `cost_usd`.
        scores: The scores recorded, a summary for each name, in order.
        days: The same metrics for each UTC day with events, in order; none if hours were asked for.
        hours: The same metrics for each UTC hour with events, in order, if they were asked for.
    """

    agent_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    conversations: int = 0
    ended: int = 0
    failed: int = 0
    open: int = 0
    success_rate: float | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    tool_calls: int = 0
    tokens_used: int = 0
    response_time: ResponseTime = field(default_factory=ResponseTime)
    quality_count: int = 0
    quality_mean: float | None = None
    quality_distribution: dict[int, int] = field(default_factory=dict)
    llm_calls: int = 0
    llm_tokens: int = 0
    cost_usd: float | None = None
    unpriced: int = 0
    days: tuple[Metrics, ...] = ()
    scores: tuple[ScoreSummary, ...] = ()
    hours: tuple[Metrics, ...] = ()

    @property
    def steps(self) -> tuple[Metrics, ...]:
        """The hours or days, whichever were asked for."""
        return self.hours or self.days

    @property
    def day(self) -> date | None:
        """The UTC day on which the period begins; None if it has no start."""
        if self.since_ms is None:
            return None
        return datetime.fromtimestamp(self.since_ms // 1000, timezone.utc).date()


def get_metrics(
    connection: Connection,
    wanted: Filters = EVERYTHING,
    events: FromClause = EVENTS,
    *,
    step: str = DAY,
) -> Metrics:
    """Return metrics of the events that match.

    Args:
        connection: A connection to the database.
        wanted: Which events.
        events: The table of events.
        step: One of `STEPS`: whether the metrics have `days` or `hours`. Both are of UTC.
    """
    width = STEPS[step]
    window = _Window(Slices(connection, events, wanted), wanted.since_ms, wanted.until_ms, width)
    total, steps = _Tally(), defaultdict[int, _Tally](_Tally)
    _count_lifecycle(window, total, steps)
    _count_work(window, total, steps)
    for call in calls_in_slices(connection, events, wanted):
        if _FIRST_MS <= call.timestamp_ms < _END_MS:
            steps[call.timestamp_ms // width].count_model_call(call.total_tokens, call.cost_usd)
    for tally in steps.values():
        total.add_work(tally)
    agent_id = wanted.agent_id
    found = tuple(steps[number].metrics(agent_id, *window.part(number)) for number in sorted(steps))
    whole = total.metrics(agent_id, wanted.since_ms, wanted.until_ms)
    return replace(whole, hours=found) if step == HOUR else replace(whole, days=found)


@dataclass(frozen=True)
class _Window:
    """The events to read."""

    slices: Slices
    since_ms: int | None
    until_ms: int | None
    width: int

    @property
    def events(self) -> FromClause:
        """The table of events."""
        return self.slices.events

    @property
    def step(self) -> ColumnElement[int]:
        """The day or hour in which an event was logged, counted from 1970."""
        return self.events.c.timestamp_ms // self.width

    def number(self, field: str) -> ColumnElement[Any]:
        """A numeric field."""
        return number_field(self.events, field)

    def select(
        self,
        types: Sequence[str],
        *columns: ColumnElement[Any],
        order: ColumnElement[Any] | None = None,
    ) -> Iterable[Any]:
        """Return columns of the window's events of some types."""
        event = self.events.c
        valid = in_period(self.events, _FIRST_MS, _END_MS)
        query = select(*columns).where(*valid, event.type.in_(types))
        if order is not None:
            query = query.order_by(order)
        return self.slices.rows(query)

    def part(self, step: int) -> tuple[int, int]:
        """Return the limits of a day or an hour within the period."""
        start, end = step * self.width, (step + 1) * self.width
        return (
            start if self.since_ms is None else max(start, self.since_ms),
            end if self.until_ms is None else min(end, self.until_ms),
        )


@dataclass
class _Tally:
    """Counts of a day, of an hour or in total."""

    statuses: dict[Any, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    messages: int = 0
    tool_calls: int = 0
    tokens_used: int = 0
    response_times: list[float] = field(default_factory=list)
    llm_calls: int = 0
    llm_tokens: int = 0
    costs: list[float | None] = field(default_factory=list)
    judged: Tally = field(default_factory=Tally)

    def count_message(self, used: Any, took: Any) -> None:
        """Count a message, with its tokens and response time."""
        self.messages += 1
        self.tokens_used += tokens("tokens_used", used) or 0
        time_ms = figure("response_time_ms", took)
        if time_ms is not None:
            self.response_times.append(time_ms)

    def count_model_call(self, used: Any, cost: Any) -> None:
        """Count a model call, with its tokens and cost."""
        self.llm_calls += 1
        self.llm_tokens += tokens("total_tokens", used) or 0
        self.costs.append(figure("cost_usd", cost))

    def add_work(self, other: _Tally) -> None:
        """Add another tally's messages, tool calls and model calls."""
        self.messages += other.messages
        self.tool_calls += other.tool_calls
        self.tokens_used += other.tokens_used
        self.response_times += other.response_times
        self.llm_calls += other.llm_calls
        self.llm_tokens += other.llm_tokens
        self.costs += other.costs

    def metrics(self, agent_id: str | None, since_ms: int | None, until_ms: int | None) -> Metrics:
        """Return the metrics."""
        status = Counter(self.statuses.values())
        cost_usd, unpriced = known_sum(self.costs)
        over = status[ENDED] + status[FAILED]
        nearest = Counter(math.floor(score + 0.5) for score in self.scores)
        return Metrics(
            agent_id=agent_id,
            since_ms=since_ms,
            until_ms=until_ms,
            conversations=len(self.statuses),
            ended=status[ENDED],
            failed=status[FAILED],
            open=status[OPEN],
            success_rate=status[ENDED] / over if over else None,
            outcomes=dict(sorted(self.outcomes.items())),
            messages=self.messages,
            tool_calls=self.tool_calls,
            tokens_used=self.tokens_used,
            response_time=_response_time(self.response_times),
            quality_count=len(self.scores),
            quality_mean=_mean(self.scores),
            quality_distribution={score: nearest[score] for score in range(1, _BEST_SCORE + 1)},
            llm_calls=self.llm_calls,
            llm_tokens=self.llm_tokens,
            cost_usd=cost_usd,
            unpriced=unpriced,
            scores=tuple(self.judged.summaries()),
        )


def _count_lifecycle(window: _Window, total: _Tally, steps: dict[int, _Tally]) -> None:
    event = window.events.c
    outcome_of = case((event.type == CONVERSATION_ENDED, text_field(window.events, "outcome")))
    score_of = case((event.type == CONVERSATION_ENDED, window.number("quality_score")))
    columns = (window.step, event.session_id, event.type, outcome_of, score_of)
    for step, session_id, type_, said, value in window.select(
        LIFECYCLE, *columns, order=event.position
    ):
        outcome, score = conversations.text(said), figure("quality_score", value)
        for tally in (total, steps[int(step)]):
            if session_id is not None:
                status = tally.statuses.get(session_id, OPEN)
                tally.statuses[session_id] = conversations.next_status(status, type_, outcome)
            if outcome is not None:
                tally.outcomes[outcome] += 1
            if score is not None:
                tally.scores.append(score)


def _count_work(window: _Window, total: _Tally, steps: dict[int, _Tally]) -> None:
    """Count messages, calls and scores, in one pass: the outbox has no index of types."""
    event = window.events.c
    message, model_call = event.type == MESSAGE_LOGGED, event.type == LLM_USED
    used_of = case(
        (message, window.number("tokens_used")), (model_call, window.number("total_tokens"))
    )
    figure_of = case(
        (message, window.number("response_time_ms")), (model_call, window.number("cost_usd"))
    )
    judged = case((event.type.in_(SCORES), event.data))
    columns = (window.step, event.session_id, event.type, used_of, figure_of, judged)
    for step, session_id, type_, used, value, data in window.select(_WORK, *columns):
        tally = steps[int(step)]
        if type_ in SCORES:
            for each in (tally, total):
                each.judged.count_stored(type_, data)
            continue
        if type_ == LLM_USED:
            tally.count_model_call(used, value)
            continue
        if type_ == MESSAGE_LOGGED:
            tally.count_message(used, value)
        else:
            tally.tool_calls += 1
        if session_id is not None:
            tally.statuses.setdefault(session_id, OPEN)
            total.statuses.setdefault(session_id, OPEN)


def _response_time(values: list[float]) -> ResponseTime:
    if not values:
        return ResponseTime()
    ordered = sorted(values)
    return ResponseTime(
        len(ordered), _mean(ordered), *(nearest_rank(ordered, percent) for percent in (50, 95, 99))
    )


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of at least one value, in ascending order."""
    rank = -(-percent * len(ordered) // 100)  # rounded up, with integers
    return ordered[max(rank, 1) - 1]


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
