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
        ConfigurationError: if the text is something else; the message calls it by `name`.
    """

    def __init__(self, text: str, name: str = "upload_window") -> None:
        self._spans = [_parse(part.strip()) for part in text.split(",")] if text else []
        if any(span.start == span.end for span in self._spans):
            raise ConfigurationError(
                f"{name} is {text!r}; give spans of local time from HH:MM to another HH:MM, as in "
                "'22:00-06:00' or '12:00-13:00, 22:00-06:00'"
            )

    def opens_at(self, now: float) -> float | None:
        """Return when it opens next, as seconds since the epoch; None if it is open `now`."""
        if not self._spans:
            return None
        today = localtime(now)
        minute = today.tm_hour * 60 + today.tm_min
        if any(span.holds(minute) for span in self._spans):
            return None
        times = [
            # mktime knows whether that hour has daylight saving, and normalizes the day.
            mktime((*today[:2], today.tm_mday + day, *divmod(span.start, 60), 0, 0, 0, -1))
            for span in self._spans
            for day in (0, 1)
        ]
        return min((time for time in times if time > now), default=now)


def _parse(part: str) -> _Span:
    """Return what a text stands for; an empty span if that is nothing."""
    found = _SPAN.fullmatch(part)
    return _Span(*map(_minutes, found.groups())) if found else _Span(0, 0)


def _minutes(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)
