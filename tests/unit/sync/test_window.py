"""`UploadWindow`: open at the times that it names, by the local clock."""

from __future__ import annotations

import time
from calendar import timegm
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.errors import ConfigurationError
from tracker.sync.window import UploadWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OSLO = "CET-1CEST,M3.5.0,M10.5.0/3"
"""Central European time as POSIX writes it, so that no database of zones is needed."""


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Change the process's time zone; restored afterwards."""
    with pytest.MonkeyPatch.context() as patch:

        def use(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        use("UTC0")
        yield use
    time.tzset()


def at(text: str) -> float:
    """Return a time in UTC as seconds since the epoch."""
    return float(timegm(time.strptime(text, "%Y-%m-%d %H:%M")))


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("22:00-06:00", "2026-03-02 21:59", "2026-03-02 22:00"),
        ("22:00-06:00", "2026-03-02 22:00", None),
        ("22:00-06:00", "2026-03-02 00:00", None),
        ("22:00-06:00", "2026-03-02 05:59", None),
        ("22:00-06:00", "2026-03-02 06:00", "2026-03-02 22:00"),
        ("02:00-04:30", "2026-03-02 04:30", "2026-03-03 02:00"),
        ("02:00-04:30", "2026-03-02 01:00", "2026-03-02 02:00"),
        ("02:00-04:30", "2026-12-31 12:00", "2027-01-01 02:00"),
        ("12:00-13:00, 22:00-06:00", "2026-03-02 13:00", "2026-03-02 22:00"),
        ("12:00-13:00,22:00-06:00", "2026-03-02 06:00", "2026-03-02 12:00"),
        ("18:00-24:00", "2026-03-02 23:59", None),
        ("18:00-24:00", "2026-03-02 00:00", "2026-03-02 18:00"),
        ("00:00-24:00", "2026-03-02 00:00", None),
        ("", "2026-03-02 12:00", None),
    ],
)
def test_it_opens_when_it_says(
    zone: Callable[[str], None], window: str, now: str, opens: str | None
) -> None:
    """The first minute belongs to a span, the one at its end no longer."""
    assert UploadWindow(window).opens_at(at(now)) == (opens and at(opens))


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 366 * 1440))
def test_it_is_open_when_it_says_that_it_opens(start: int, end: int, minute: int) -> None:
    """And closed until then, whatever the span."""
    if start == end:
        return
    window = UploadWindow("-".join("{:02}:{:02}".format(*divmod(t, 60)) for t in (start, end)))
    now = at("2026-01-01 00:00") + 60 * minute
    opens = window.opens_at(now)
    if opens is not None:
        assert now < opens <= now + 25 * 3600
        assert window.opens_at(opens) is None
        assert window.opens_at(opens - 60) == opens


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-07-01 12:00", "2026-07-01 20:00"),  # two hours east of UTC in summer
        ("2026-12-01 12:00", "2026-12-01 21:00"),
        ("2026-03-28 21:30", None),
        ("2026-03-29 05:00", "2026-03-29 20:00"),  # the clocks went forward at 01:00 UTC
        ("2026-10-25 06:00", "2026-10-25 21:00"),  # and back again
    ],
)
def test_it_goes_by_local_time(zone: Callable[[str], None], now: str, opens: str | None) -> None:
    """With and without daylight saving, and on the days when that changes."""
    zone(OSLO)
    assert UploadWindow("22:00-06:00").opens_at(at(now)) == (opens and at(opens))


def test_another_time_zone_counts_at_once(zone: Callable[[str], None]) -> None:
    """A ship that sails to another zone need not restart the application."""
    window = UploadWindow("22:00-06:00")
    assert window.opens_at(at("2026-03-02 21:30")) is not None
    zone(OSLO)
    assert window.opens_at(at("2026-03-02 21:30")) is None


@pytest.mark.parametrize(
    "text",
    ["22-6", "22:00", "22:00-22:00", "00:00-00:00", "24:00-06:00", "22:00-06:60", "25:00-06:00",
     "22:00-06:00,", ",", " ", "22:00 - 06:00", "22:00-06:00;12:00-13:00", "2\u0662:00-06:00"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """With what was given, and an example of what is allowed."""
    with pytest.raises(ConfigurationError, match="give spans of local time") as caught:
        UploadWindow(text)
    assert repr(text) in str(caught.value)
