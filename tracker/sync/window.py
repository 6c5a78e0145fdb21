"""`UploadWindow`: the times of day at which uploads are allowed."""

from __future__ import annotations

import re
from time import localtime, mktime
from typing import NamedTuple

from tracker.errors import ConfigurationError

_SPAN = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d)-((?:[01]\d|2[0-3]):[0-5]\d|24:00)", re.ASCII)


class _Span(NamedTuple):
    """A daily span of local time, in minutes after midnight; one that ends first crosses it."""

    start: int
    end: int

    def holds(self, minute: int) -> bool:
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


class UploadWindow:
    """Daily spans of local time, such as ``"22:00-06:00"``, separated by commas.

    Each question is answered by the local clock at that moment, so that daylight saving and a new
    time zone count as soon as Python's local time follows them. No span at all is always open.

    Raises:
        ConfigurationError: if the text is something else.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans = [self._parse(part.strip()) for part in text.split(",")] if text else []

    def _parse(self, part: str) -> _Span:
        found = _SPAN.fullmatch(part)
        span = _Span(*(_minutes(time) for time in found.groups())) if found else _Span(0, 0)
        if span.start == span.end:
            raise ConfigurationError(
                f"upload_window (SDK_UPLOAD_WINDOW) is {self._text!r}; give spans of local time "
                "from HH:MM to another HH:MM, as in '22:00-06:00' or '12:00-13:00, 22:00-06:00'"
            )
        return span

    def opens_at(self, now: float) -> float | None:
        """Return when it opens next, as seconds since the epoch; None if it is open `now`."""
        today = localtime(now)
        minute = today.tm_hour * 60 + today.tm_min
        if not self._spans or any(span.holds(minute) for span in self._spans):
            return None
        times = [
            # mktime knows whether that hour has daylight saving, and normalizes the day.
            mktime((*today[:2], today.tm_mday + day, *divmod(span.start, 60), 0, 0, 0, -1))
            for span in self._spans
            for day in (0, 1)
        ]
        return min((time for time in times if time > now), default=now)


def _minutes(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)
