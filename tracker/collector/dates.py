"""Times as text for people."""

from __future__ import annotations

from datetime import datetime, timezone


def date_text(milliseconds: int) -> str:
    """Return a time, Unix milliseconds, as in ``2026-11-01T12:00:00Z``."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
