"""Figures, times and sizes as people read them; what is not known is None, and shown as a dash."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

from tracker.cli.output import counted, duration, size

__all__ = ["FILTERS", "counted", "duration", "size"]

_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_CENT = 0.01
_TEN_THOUSAND, _MILLION = 10_000, 1_000_000
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_NEARLY = 0.99995
"""Of a unit: what is rounded to 1.0 of it, and not to 1000.0 of the one below."""
_MOST = 1e15
"""What is above is told by its power of ten."""
_MONTHS_SECONDS = 300 * 86_400
"""What is further away is told with its year."""


def number(value: float | None) -> str | None:
    """Return a number with commas."""
    return None if value is None else f"{value:,}"


def short(value: float | None) -> str | None:
    """Return a large number in thousands, millions, billions or trillions."""
    if value is None or value < _TEN_THOUSAND:
        return number(value)
    return _in_units(value, ".1f")


def money(dollars: float | None) -> str | None:
    """Return US dollars; with more digits below a cent."""
    if dollars is None:
        return None
    return f"${dollars:,.4f}" if 0 < dollars < _CENT else f"${dollars:,.2f}"


def price(dollars: float | None) -> str | None:
    """Return US dollars where there is little room: large sums without cents, or in millions."""
    if dollars is None or dollars < _TEN_THOUSAND:
        return money(dollars)
    return f"${dollars:,.0f}" if dollars < _MILLION - 1 else f"${short(dollars)}"


def axis_price(dollars: float) -> str:
    """Return US dollars for the axis of a chart, of which the values are round."""
    return f"${f'{dollars:,.4g}' if dollars < _TEN_THOUSAND else _in_units(dollars, '.3g')}"


def axis_took(milliseconds: float) -> str:
    """Return a duration in one unit, for the axis of a chart."""
    for unit, word in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (_SECOND, "s")):
        if milliseconds >= unit:
            return f"{milliseconds / unit:,.3g} {word}"
    return f"{milliseconds:.3g} ms"


def axis_number(value: float) -> str:
    """Return a count for the axis of a chart; nothing for a part of one."""
    if value < _TEN_THOUSAND:
        return f"{value:,.0f}" if value == int(value) else ""
    return _in_units(value, ".3g")


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
    if value is None or abs(value) >= _MOST:
        return None if value is None else f"{value:.3g}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def moment(milliseconds: object) -> str | None:
    """Return Unix milliseconds as local time; None if they are none, as in a damaged row."""
    found = _local(milliseconds)
    return None if found is None else f"{found:%d %b %Y %H:%M:%S}"


def day(milliseconds: object) -> str | None:
    """Return Unix milliseconds as local time without seconds; with its year if that is far."""
    found = _local(milliseconds)
    if found is None:
        return None
    is_near = abs(found.timestamp() - time.time()) < _MONTHS_SECONDS
    return f"{found:%d %b %H:%M}" if is_near else f"{found:%d %b %Y %H:%M}"


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


def _in_units(value: float, form: str) -> str:
    if value >= _MOST:
        return f"{value:.1e}"
    unit, letter = next(each for each in _UNITS if value >= each[0] * _NEARLY)
    return f"{value / unit:{form}}{letter}"


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
        price,
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
