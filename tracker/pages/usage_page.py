"""Tokens and cost of model calls, by model, agent, day or conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.pages.view import PERIODS, Page
from tracker.queries.usage import BY, LLMUsage, usage

if TYPE_CHECKING:
    from tracker.pages.view import View

_MOST_ROWS = 100


def usage_page(view: View) -> Page:
    """Return the page."""
    by = view.one_of("by", BY, "model")
    made = view.part(
        "usage",
        lambda connection: usage(
            connection, by, view.filters(since_ms=view.since_ms()), view.source.events
        ),
        by,
        view.period,
    )
    found: list[LLMUsage] | None = made.value
    rows = found or []
    return Page("usage.html", "Usage", {
        "by": by,
        "groups": BY,
        "ready": found is not None,
        "rows": rows[::-1][:_MOST_ROWS] if by == "day" else rows[:_MOST_ROWS],
        "left_out": max(len(rows) - _MOST_ROWS, 0),
        "total": _total(rows),
        "most": max((row.cost_usd or 0 for row in rows), default=0),
        "most_tokens": max((row.total_tokens for row in rows), default=0),
        "period": view.period,
        "periods": tuple(PERIODS),
    })  # fmt: skip


def _total(rows: list[LLMUsage]) -> dict[str, float | int | None]:
    known = [row.cost_usd for row in rows if row.cost_usd is not None]
    return {
        "cost": sum(known) if known else None,
        "calls": sum(row.calls for row in rows),
        "unpriced": sum(row.unpriced for row in rows),
        "tokens": sum(row.total_tokens for row in rows),
        "prompt": sum(row.prompt_tokens for row in rows),
        "completion": sum(row.completion_tokens for row in rows),
    }
