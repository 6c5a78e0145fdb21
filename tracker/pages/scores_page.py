"""What users and reviewers thought, by score, day or release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.pages.view import PERIODS, Page
from tracker.queries.scores import BY, ScoreSummary, get_scores

if TYPE_CHECKING:
    from tracker.pages.view import View

_MOST_ROWS = 200


def scores_page(view: View) -> Page:
    """Return the page."""
    by = view.one_of("by", BY, "name")
    made = view.part(
        "scores",
        lambda connection: get_scores(
            connection, by, view.filters(since_ms=view.since_ms()), view.source.events
        ),
        by,
        view.period,
    )
    found: list[ScoreSummary] | None = made.value
    rows = found or []
    return Page("scores.html", "Scores", {
        "ready": found is not None,
        "by": by,
        "groups": BY,
        "rows": rows[::-1][:_MOST_ROWS] if by == "day" else rows[:_MOST_ROWS],
        "left_out": max(len(rows) - _MOST_ROWS, 0),
        "period": view.period,
        "periods": tuple(PERIODS),
    })  # fmt: skip
