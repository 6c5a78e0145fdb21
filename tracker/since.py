"""`Since`: a time as an argument of a command."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Since(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A time as Unix milliseconds, given as a date and time or as an age."""

    name = "since"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Parse ``2026-11-01``, ``2026-11-01T12:00``, ``…+01:00``, ``…Z``, ``2h`` or ``7d``."""
        text = str(value).strip()
        try:
            back = duration_of(text)
            if back is not None:
                return int((datetime.now(timezone.utc) - back).timestamp() * 1000)
            return moment_of(text)
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{text!r} is not a time; give a date such as 2026-11-01 or 2026-11-01T12:00, or "
                "an age such as 30m, 2h, 7d",
                param,
                ctx,
            )


def duration_of(text: str) -> timedelta | None:
    """Return what ``30m``, ``2h`` or ``7d`` means, or None if the text is not of that form.

    Raises:
        OverflowError: if it is too long.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text, re.ASCII)
    return None if found is None else timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def moment_of(text: str) -> int:
    """Return a date, or a date and time, as Unix milliseconds; without an offset, of local time.

    Raises:
        ValueError: if it is neither.
        OverflowError: if it is too far away.
        OSError: if the system cannot tell.
    """
    # Python 3.10 does not accept the Z.
    return int(datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp() * 1000)
