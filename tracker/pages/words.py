"""Figures, times and sizes as people read them; what is not known is None, and shown as a dash."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

from tracker.cli.output import counted, duration, size

__all__ = ["FILTERS", "counted", "duration", "size"]

_SECOND, _MINUTE = 1_000, 60_000
_CENT = 0.01
_THOUSAND, _MILLION = 10_000, 1_000_000


def number(value: float | None) -> str | None:
    """Return a number with commas."""
    return None if value is None else f"{value:,}"


def short(value: float | None) -> str | None:
    """Return a large number in thousands or millions."""
    if value is None or value < _THOUSAND:
        return number(value)
    if value < _MILLION:
        return f"{value / 1_000:.1f}k"
    return f"{value / _MILLION:,.1f}M"


def money(dollars: float | None) -> str | None:
    """Return US dollars; with more digits below a cent."""
    if dollars is None:
        return None
    return f"${dollars:,.4f}" if 0 < dollars < _CENT else f"${dollars:,.2f}"


def percent(share: float | None) -> str | None:
    """Return a share from 0.0 to 1.0 as a percentage; only all of it is 100 %."""
    if share is None:
        return None
    rounded = round(share * 100, 1)
    if rounded in (0.0, 100.0) and share not in (0.0, 1.0):
        return "above 99.9 %" if rounded else "below 0.1 %"
    return f"{rounded:g} %"


def took(milliseconds: float | None) -> str | None:
    """Return a duration in the unit that suits it."""
    if milliseconds is None:
        return None
    if milliseconds < _SECOND:
        return f"{milliseconds:.0f} ms" if milliseconds >= 1 or not milliseconds else "below 1 ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / 1000:.2f} s"
    return duration(milliseconds / 1000)


def score(value: float | None) -> str | None:
    """Return a score with at most two decimals."""
    return None if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def moment(milliseconds: object) -> str | None:
    """Return Unix milliseconds as local time; None if they are none, as in a damaged row."""
    found = _local(milliseconds)
    return None if found is None else f"{found:%d %b %Y %H:%M:%S}"


def day(milliseconds: object) -> str | None:
    """Return Unix milliseconds as local time without the year and the seconds."""
    found = _local(milliseconds)
    return None if found is None else f"{found:%d %b %H:%M}"


def clock(milliseconds: object) -> str | None:
    """Return the local time of day of Unix milliseconds."""
    found = _local(milliseconds)
    return None if found is None else f"{found:%H:%M:%S}"


def iso(milliseconds: object) -> str:
    """Return Unix milliseconds as ISO 8601 in UTC; an empty text if they are none."""
    found = _local(milliseconds)
    return "" if found is None else f"{found.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def ago(milliseconds: object) -> str | None:
    """Return how long ago a time was, in its two largest units."""
    if not isinstance(milliseconds, int):
        return None
    seconds = time.time() - milliseconds / 1000
    if abs(seconds) < 1:
        return "now"
    return f"{duration(abs(seconds))} {'ago' if seconds > 0 else 'from now'}"


def readable_json(value: Any) -> str:
    """Return JSON for people; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _local(milliseconds: object) -> datetime | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


FILTERS = {
    each.__name__: each
    for each in (
        number,
        short,
        money,
        percent,
        took,
        score,
        moment,
        day,
        clock,
        iso,
        ago,
        readable_json,
    )
} | {"counted": counted, "duration": duration, "size": size}
"""The filters of the templates, by name."""
