"""Figures of events, limited to the values that logging calls accept.

A stored event may be damaged, from an older version or from another client. A figure that no
logging call accepts is ignored, so that no sum exceeds the range of a number.
"""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from tracker.validation import MAX_COST_USD, MAX_MILLISECONDS, MAX_TOKENS

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NANOSECONDS = 1_000_000
"""Of a millisecond."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BEST_SCORE = 5
_MOST_DIGITS = 19
"""Of nanoseconds since 1970: as many as 64 bits hold, until 2286."""

BOUNDS: dict[str, tuple[int, int]] = {
    "cost_usd": (0, MAX_COST_USD),
    "quality_score": (1, _BEST_SCORE),
    **dict.fromkeys(("duration_ms", "response_time_ms"), (0, MAX_MILLISECONDS)),
    **dict.fromkeys(
        (
            *("prompt_tokens", "completion_tokens", "total_tokens", "tokens_used"),
            *("cached_tokens", "cache_write_tokens"),
        ),
        (0, MAX_TOKENS),
    ),
}
"""The minimum and maximum of each numeric field."""


def day_name(day: int) -> str | None:
    """Return a day counted from 1970 as text; None after the year 9999."""
    try:
        return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
    except OverflowError:
        return None


def figure(field: str, value: object) -> float | int | None:
    """Return the value of a field if it is a number within its limits, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    least, most = BOUNDS[field]
    return value if least <= value <= most else None  # NaN is never within limits


def tokens(field: str, value: object) -> int | None:
    """Return the value of a field if it is a number of tokens, otherwise None."""
    found = figure(field, value)
    return None if found is None else int(found)


def nanoseconds(value: object) -> int | None:
    """Return a time of OpenTelemetry, nanoseconds since 1970 as text; None if it is damaged."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit()):
        return None
    return int(value) if len(value) <= _MOST_DIGITS else None


def span_duration(data: Mapping[str, Any]) -> float | None:
    """Return the milliseconds that a span of OpenTelemetry took, None if it does not tell."""
    start, end = nanoseconds(data.get("start")), nanoseconds(data.get("end"))
    if start is None or end is None:
        return None
    return figure("duration_ms", round(max(end - start, 0) / NANOSECONDS, 3))


def known_sum(costs: Iterable[float | None]) -> tuple[float | None, int]:
    """Return the sum of the known costs, None if there are none, and the number of unknown ones."""
    every = list(costs)
    known = [cost for cost in every if cost is not None]
    return math.fsum(known) if known else None, len(every) - len(known)
