"""Tokens and cost of model calls, by model, agent, day or conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracker.pages.view import PERIODS, Page
from tracker.queries.usage import BY, LLMUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.pages.view import View

_MOST_ROWS = 100


class Found(NamedTuple):
    """The usage by some key.

    Attributes:
        rows: The first rows.
        groups: How many there are.
        summed: Rows with the same sum as all of them.
    """

    rows: list[LLMUsage]
    groups: int
    summed: list[LLMUsage]


def usage_page(view: View) -> Page:
    """Return the page."""
    by = view.one_of("by", BY, "model")
    made = view.part("usage", _usage_of(view, by), by, view.period)
    found: Found | None = made.value
    rows, groups, summed = found or Found([], 0, [])
    return Page("usage.html", "Usage", {
        "by": by,
        "groups": BY,
        "ready": found is not None,
        "rows": rows[::-1][:_MOST_ROWS] if by == "day" else rows[:_MOST_ROWS],
        "left_out": max(groups - _MOST_ROWS, 0),
        "total": _total(summed),
        "most": max((row.cost_usd or 0 for row in rows), default=0),
        "most_tokens": max((row.total_tokens for row in rows), default=0),
        "period": view.period,
        "periods": tuple(PERIODS),
    })  # fmt: skip


def _usage_of(view: View, by: str) -> Callable[[Connection], Found]:
    wanted, reads = view.filters(since_ms=view.since_ms()), view.source.reads

    def query(connection: Connection) -> Found:
        if by != "session":
            rows, groups = reads.usage(connection, by, wanted)
            return Found(rows, groups, rows)
        # Of conversations there may be too many for memory.
        rows, groups = reads.usage(connection, by, wanted, 0, _MOST_ROWS)
        return Found(rows, groups, reads.usage(connection, "model", wanted).rows)

    return query


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
