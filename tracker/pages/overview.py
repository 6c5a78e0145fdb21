"""The overview: what comes first for this source, what the agents did, the newest conversations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tracker.pages import charts
from tracker.pages.charts import Series
from tracker.pages.listing import Listed, listed
from tracker.pages.view import PERIODS, Page
from tracker.pages.words import axis_number, axis_price, axis_took, counted, money, number, took
from tracker.queries.metrics import Metrics

if TYPE_CHECKING:
    from markupsafe import Markup

    from tracker.pages.view import View

_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000
_NEWEST = 8
_GOOD = ("resolved", "success", "succeeded", "ok", "done", "completed")


@dataclass(frozen=True)
class Step:
    """A day or an hour of a chart, and its metrics."""

    label: str
    since_ms: int
    metrics: Metrics


def overview(view: View) -> Page:
    """Return the overview."""
    period = view.period
    hourly = period == "24h"
    made = view.part(
        "metrics",
        lambda connection: view.source.reads.metrics(
            connection,
            view.filters(since_ms=view.since_ms()),
            "hour" if hourly else "day",
        ),
        period,
    )
    metrics: Metrics | None = made.value
    newest: Listed | None = view.part(
        "newest",
        lambda connection: listed(view, connection, limit=_NEWEST),
        view.text("agent"),
        view.text("user"),
    ).value
    steps = [] if metrics is None else _steps(metrics, PERIODS[period], hourly=hourly)
    return Page(
        "overview.html",
        "Overview",
        {
            "lead": view.source.lead(view.connection),
            "metrics": metrics,
            "steps": steps,
            "charts": [] if metrics is None or not steps else _charts(metrics, steps),
            "periods": tuple(PERIODS),
            "period": period,
            "step": "hour" if hourly else "day",
            "newest": None if newest is None else newest.rows,
        },
    )


def _steps(metrics: Metrics, days: int, *, hourly: bool) -> list[Step]:
    """Return every step of the period, those without events too."""
    width = _HOUR_MS if hourly else _DAY_MS
    now = time.time_ns() // 1_000_000
    known = {(step.since_ms or 0) // width: step for step in metrics.steps}
    first = (now - days * _DAY_MS) // width
    return [
        Step(_label(step * width, hourly=hourly), step * width, known.get(step, Metrics()))
        for step in range(first, now // width + 1)
    ]


def _label(since_ms: int, *, hourly: bool) -> str:
    began = datetime.fromtimestamp(since_ms / 1000, timezone.utc)
    return f"{began:%H:%M}" if hourly else f"{began:%d %b}"


def _charts(metrics: Metrics, steps: list[Step]) -> list[tuple[str, Markup, str]]:
    """Return the name, the drawing and the key of each chart that has anything to show."""
    labels = [step.label for step in steps]
    each = [step.metrics for step in steps]
    drawn = []
    if metrics.conversations:
        drawn.append(("Conversations", _states(metrics, labels, each), "states"))
    if metrics.response_time.count:
        drawn.append(("Response time", _times(metrics, labels, each), "times"))
    if metrics.cost_usd is not None:
        drawn.append(("Model cost", _cost(metrics, labels, each), "cost"))
    if metrics.outcomes:
        drawn.append(("Outcomes", _outcomes(metrics), "outcomes"))
    return drawn


def _states(metrics: Metrics, labels: list[str], each: list[Metrics]) -> Markup:
    return charts.stacked(
        f"Conversations: {metrics.ended:,} ended, {metrics.open:,} open, {metrics.failed:,} failed",
        labels,
        [
            Series("ended", "ended", [m.ended for m in each]),
            Series("open", "open", [m.open for m in each]),
            Series("failed", "failed", [m.failed for m in each]),
        ],
        lambda value: number(int(value)) or "",
        axis_number,
    )


def _times(metrics: Metrics, labels: list[str], each: list[Metrics]) -> Markup:
    whole = metrics.response_time
    return charts.lines(
        f"Response time: p95 {took(whole.p95_ms) or 'not measured'}, median "
        f"{took(whole.p50_ms) or 'not measured'}",
        labels,
        [
            Series("p95", "p95", [m.response_time.p95_ms for m in each]),
            Series("median", "median", [m.response_time.p50_ms for m in each]),
        ],
        lambda value: took(value) or "",
        axis_took,
    )


def _cost(metrics: Metrics, labels: list[str], each: list[Metrics]) -> Markup:
    return charts.stacked(
        f"Model cost: {money(metrics.cost_usd) or 'not known'}",
        labels,
        [Series("model cost", "cost", [m.cost_usd for m in each])],
        lambda value: money(value) or "",
        axis_price,
    )


def _outcomes(metrics: Metrics) -> Markup:
    found = sorted(metrics.outcomes.items(), key=lambda item: (-item[1], item[0]))
    return charts.rows(
        f"Outcomes: {counted(len(found), 'kind')}",
        [(name, amount, _kind(name)) for name, amount in found],
    )


def _kind(outcome: str) -> str:
    from tracker.queries.conversations import is_failure

    if is_failure(outcome):
        return "failed"
    return "ended" if outcome.casefold() in _GOOD else "open"
