"""Times in the commands that make keys, as arguments of click."""

from __future__ import annotations

import time
from typing import Any

import click

from tracker.since import duration_of, moment_of

DAY_MS = 86_400_000
MOST_DAYS = 36_500


class Expiry(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A moment in the future as Unix milliseconds, given as a date and time."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Parse ``2027-11-01``, ``2027-11-01T12:00``, ``…+01:00`` or ``…Z``."""
        text = str(value).strip()
        try:
            moment = moment_of(text)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{text!r} is not a time; give one such as 2027-11-01T12:00", param, ctx)
        if moment <= now_ms():
            self.fail(f"{text} is over", param, ctx)
        return moment


class Overlap(click.ParamType):  # type: ignore[type-arg]  # as above
    """A duration in milliseconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Parse ``30m``, ``2h``, ``7d`` or ``2w``."""
        text = str(value).strip()
        try:
            duration = duration_of(text)
        except OverflowError:
            duration = None
        if duration is None or duration.days > MOST_DAYS:
            self.fail(f"{text!r} is not a duration; give one such as 12h or 7d", param, ctx)
        return int(duration.total_seconds() * 1000)


def now_ms() -> int:
    """Return the time, Unix milliseconds."""
    return time.time_ns() // 1_000_000
