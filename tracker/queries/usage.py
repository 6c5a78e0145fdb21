"""Tokens and cost of model calls: ``llm.used`` events, and spans that `model_calls` finds."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, literal_column, select

from tracker.events import LLM_USED
from tracker.queries.figures import BOUNDS, DAY_MS, day_name
from tracker.queries.filters import EVERYTHING
from tracker.queries.model_calls import calls_in_slices
from tracker.queries.slices import Slices
from tracker.queries.source import (
    EVENTS,
    lower_half,
    number_field,
    text_field,
    upper_half,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from tracker.queries.filters import Filters
    from tracker.queries.model_calls import ModelCall


@dataclass(frozen=True)
class LLMUsage:
    """Usage of a model, an agent, a session or a day.

    Attributes:
        key: The model's name, the agent's or session's id, or the UTC day as ``"2026-11-23"``;
            None for calls without one.
        calls: Number of model calls.
        prompt_tokens: Tokens sent, including those from the provider's cache.
        completion_tokens: Tokens received.
        total_tokens: The sum of both.
        cached_tokens: Prompt tokens read from the provider's cache, as far as reported.
        cost_usd: Cost in US dollars, as far as known; None if none is known.
        unpriced: Number of calls whose cost is unknown and not in `cost_usd`.
        cache_write_tokens: Prompt tokens written to the provider's cache, as far as reported.
    """

    key: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    cost_usd: float | None
    unpriced: int
    cache_write_tokens: int = 0


BY = ("model", "agent", "session", "day")
"""The groups by which usage can be summed."""

_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
)


def usage(
    connection: Connection, by: str, wanted: Filters = EVERYTHING, events: FromClause = EVENTS
) -> list[LLMUsage]:
    """Return the usage by one of `BY`: days in order, others with the most tokens first."""
    slices = Slices(connection, events, wanted)
    found = defaultdict[Any, _Calls](_Calls)
    for key, *sums in slices.rows(_query(by, slices.events)):
        found[day_name(key) if by == "day" else key].add_sums(*sums)
    for call in calls_in_slices(connection, events, wanted):
        found[_key_of(by, call)].add(call)
    summed = [calls.usage(key) for key, calls in found.items()]
    if by == "day":
        return sorted(summed, key=lambda one: one.key or "")
    return sorted(summed, key=lambda one: (-one.total_tokens, one.key or ""))


def _query(by: str, events: FromClause) -> Select[Any]:
    called = (
        select(
            _key(by, events).label("key"),
            *(_within(events, name).label(name) for name in ("cost_usd", *_COUNTS)),
        )
        .where(events.c.type == LLM_USED)
        .subquery()
    )
    # SQLite fails for a sum beyond 64 bits, which sums of halves cannot reach.
    halves = [
        func.sum(half)
        for name in _COUNTS
        for half in (upper_half(called.c[name]), lower_half(called.c[name]))
    ]
    costs = (func.sum(called.c.cost_usd), func.count(called.c.cost_usd))
    return (
        select(called.c.key, func.count(), *costs, *halves)
        # An erased event has no figures, and those of a damaged one are not reliable.
        .where(called.c.total_tokens.is_not(None))
        .group_by(called.c.key)
    )


def _within(events: FromClause, name: str) -> ColumnElement[Any]:
    """Return a figure within its limits, like `figures.figure`."""
    value = number_field(events, name)
    least, most = BOUNDS[name]
    return case((value.between(literal_column(f"{least}"), literal_column(f"{most}")), value))


def _key(by: str, events: FromClause) -> ColumnElement[Any]:
    if by == "model":
        return text_field(events, "model")
    if by == "day":
        return events.c.timestamp_ms // DAY_MS
    return events.c.agent_id if by == "agent" else events.c.session_id


@dataclass
class _Calls:
    """Calls with the same key."""

    calls: int = 0
    priced: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(_COUNTS))
    costs: list[float] = field(default_factory=list)

    def add_sums(self, calls: int, cost_usd: Any, priced: int, *halves: Any) -> None:
        """Add the calls that a row of `_query` sums up."""
        self.calls += calls
        self.priced += priced
        for place, (high, low) in enumerate(zip(halves[::2], halves[1::2], strict=True)):
            # int(): PostgreSQL sums integers as decimals.
            self.counts[place] += (int(high or 0) << 32) + int(low or 0)
        if cost_usd is not None:
            self.costs.append(cost_usd)

    def add(self, call: ModelCall) -> None:
        """Add a call that a span tells of."""
        self.calls += 1
        for place, name in enumerate(_COUNTS):
            self.counts[place] += getattr(call, name) or 0
        if call.cost_usd is not None:
            self.priced += 1
            self.costs.append(call.cost_usd)

    def usage(self, key: str | None) -> LLMUsage:
        """Return their usage."""
        cost_usd = math.fsum(self.costs) if self.costs else None
        counts = dict(zip(_COUNTS, self.counts, strict=True))
        unpriced = self.calls - self.priced
        return LLMUsage(key, self.calls, cost_usd=cost_usd, unpriced=unpriced, **counts)


def _key_of(by: str, call: ModelCall) -> str | None:
    if by == "model":
        return call.model
    if by == "day":
        return day_name(call.timestamp_ms // DAY_MS)
    return call.agent_id if by == "agent" else call.session_id
