"""`Notice`: what is told on stderr of failing uploads, when, and how often."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.support.unlogged import LOGGER, unlogged
from tracker.sync.destination import Delivery, Outcome
from tracker.sync.notice import Notice

REFUSED = Delivery(Outcome.REFUSED, "the server refuses the API key (401)")
AWAY = Delivery(Outcome.UNAVAILABLE, "no answer from the server")
MINUTE, DAY = 60.0, 86_400.0


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notice(clock: Clock) -> Notice:
    return Notice(Path("/var/lib/kiosk/events.sqlite3"), clock)


@unlogged()
def test_a_refused_key_is_told_at_once_in_one_line(
    notice: Notice, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, that nothing is lost, and what to do; not again at the next attempt."""
    notice.failed(REFUSED)
    notice.failed(REFUSED)
    assert capsys.readouterr().err == (
        "tracker: the server refuses the API key (401). Nothing is lost: events are kept in "
        "/var/lib/kiosk/events.sqlite3 and sent later. Give a valid API key (SDK_API_KEY or "
        "SDK_API_KEY_FILE); `tracker-sync doctor` checks it\n"
    )


@unlogged()
def test_it_is_one_line_whatever_the_path(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder may have any name."""
    Notice(Path("/var/\n\x1b[2J\udce9"), clock).failed(REFUSED)
    [line] = capsys.readouterr().err.splitlines()
    assert r"/var/\n\x1b[2J\udce9" in line


@unlogged()
def test_other_failures_are_told_after_ten_minutes(
    notice: Notice, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only if no upload has worked meanwhile."""
    notice.failed(AWAY)
    clock.now += 9 * MINUTE
    notice.failed(AWAY)
    notice.succeeded()
    notice.failed(AWAY)
    clock.now += 9 * MINUTE
    notice.failed(AWAY)
    assert capsys.readouterr().err == ""
    clock.now += MINUTE
    notice.failed(AWAY)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "tracker: no upload has worked for 10 minutes: no answer from the server. Nothing is lost"
    )


@unlogged()
def test_each_is_told_once_a_day(
    notice: Notice, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it comes and goes; a refusal is told though the other was."""
    notice.failed(AWAY)
    for _ in range(20):
        clock.now += 11 * MINUTE
        notice.failed(AWAY)
    assert len(capsys.readouterr().err.splitlines()) == 1
    notice.failed(REFUSED)
    assert len(capsys.readouterr().err.splitlines()) == 1
    clock.now += DAY
    notice.failed(REFUSED)
    assert len(capsys.readouterr().err.splitlines()) == 1


@unlogged()
def test_with_logging_nothing_is_told(
    notice: Notice, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has it. Once there is none any more, it is told."""
    handler = logging.NullHandler()
    LOGGER.addHandler(handler)
    notice.failed(REFUSED)
    LOGGER.removeHandler(handler)
    assert capsys.readouterr().err == ""
    notice.failed(REFUSED)
    assert capsys.readouterr().err != ""
