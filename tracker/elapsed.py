"""Durations as they are logged: in milliseconds, by the clock that the application sees."""

from __future__ import annotations

import time


def milliseconds_since(began: float) -> float:
    """Return the milliseconds since a time of `time.monotonic`, with 2 decimals."""
    return round((time.monotonic() - began) * 1000, 2)
