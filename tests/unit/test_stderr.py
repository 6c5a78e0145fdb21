"""The log on stderr: once, whatever the application does, and without any harm to it."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.unlogged import LOGGER, unlogged
from tracker import Tracker, log, stderr
from tracker.redaction.own_keys import know
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

KEY = "tk_3x4mple_of_a_secret"


class Hostile:
    """What an application may have put in the place of stderr."""

    def write(self, text: str) -> int:
        raise RuntimeError("the window is gone")

    def flush(self) -> None:
        raise RuntimeError("the window is gone")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@unlogged()
def test_without_debug_nothing_is_printed(
    config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless the application sets logging up."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        tracker.track("cart.abandoned")
        tracker.flush()
    assert capsys.readouterr().err == ""


@unlogged()
def test_debug_shows_the_log_once(config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """However many trackers there are: what is opened and what is sent, a line each."""
    settings = config(debug=True)
    with (
        Tracker(settings, destination=RecordingDestination) as tracker,
        Tracker(settings, destination=RecordingDestination),
    ):
        tracker.track("cart.abandoned")
        tracker.flush()
    lines = capsys.readouterr().err.splitlines()
    assert sum("opened; uploading to a destination" in line for line in lines) == 1
    assert (
        sum(" DEBUG tracker: a request with 1 events, seq 1 to 1: delivered, " in x for x in lines)
        == 1
    )


@pytest.mark.parametrize("first", [True, False])
@unlogged()
def test_what_the_applications_logging_shows_is_not_there_twice(
    capsys: pytest.CaptureFixture[str], first: bool
) -> None:
    """Whether it is set up before or after."""
    handler = logging.StreamHandler(sys.stderr)
    if first:
        LOGGER.addHandler(handler)
    stderr.show()
    LOGGER.addHandler(handler)
    log.info("all is well")
    assert capsys.readouterr().err.count("all is well") == 1


@unlogged()
def test_what_it_leaves_out_is_there_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler for warnings, or one that writes elsewhere, shows nothing of the rest."""
    quiet = logging.StreamHandler(sys.stderr)
    quiet.setLevel(logging.WARNING)
    elsewhere = logging.StreamHandler(io.StringIO())
    for handler in (quiet, elsewhere):
        LOGGER.addHandler(handler)
    stderr.show()
    log.info("all is well")
    log.warning("not so well")
    shown = capsys.readouterr().err
    assert (shown.count("all is well"), shown.count("not so well")) == (1, 1)


@pytest.mark.parametrize("make", [lambda: None, closed, Hostile, object])
@unlogged()
def test_no_stderr_does_any_harm(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """None, a closed one, or one that raises: the application hears nothing of it."""
    monkeypatch.setattr(sys, "stderr", make())
    stderr.show()
    log.error("it failed")
    stderr.tell("it failed")


@unlogged()
def test_keys_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """As in every line of the log."""
    know(KEY)
    stderr.show()
    log.debug("the answer was %s", f"no such key: {KEY}")
    stderr.tell(f"the answer was no such key: {KEY}")
    shown = capsys.readouterr().err
    assert shown.count("[secret:tracker_key:") == 2
    assert KEY not in shown


@unlogged()
def test_somebody_hears_the_log_if_there_is_a_handler_or_nobody_wants_it() -> None:
    """The handler that the package itself adds, which drops all, is none."""
    assert not stderr.is_heard()
    LOGGER.setLevel(logging.CRITICAL)
    assert stderr.is_heard()
    LOGGER.setLevel(logging.NOTSET)
    silent = logging.NullHandler()
    LOGGER.addHandler(silent)
    assert stderr.is_heard()
