"""A page asks for itself again, and gets something only if it would look different."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of, talk
from tests.support.dashboard import PAGES, RunningDashboard, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.cli.check import Check
from tracker.clock import monotonic
from tracker.dashboard.health import Examination
from tracker.pages.parts import Parts
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.config import APIConfig


def tag_on(html: str) -> str:
    found = re.search(r'data-tag="([^"]*)"', html)
    assert found is not None
    return found[1].replace("&#34;", '"')


@pytest.mark.parametrize("page", PAGES)
def test_an_unchanged_page_is_not_sent_again(board: RunningDashboard, page: str) -> None:
    """Once its figures are there; the page itself carries the tag to ask with."""
    settled = board.settled(page)
    again = board.get(page, ("If-None-Match", tag_on(settled.text)))
    assert settled.headers["etag"] == tag_on(settled.text)
    assert (again.status, again.text) in ((304, ""), (200, again.text))
    if again.status == 200:  # the minute ended, or a figure was replaced, in between
        assert tag_on(again.text) != tag_on(settled.text)


def test_what_is_logged_changes_each_page(tmp_path: Path) -> None:
    """Of the same outbox, whichever page it is."""
    config = quick(tmp_path)
    with Tracker(config, destination=RecordingDestination) as tracker:
        talk(tracker)
        with running(path_of(config)) as board:
            for page in PAGES:  # no figure becomes ready any more, which would change all tags
                board.settled(page)
            tags = {page: board.get(page).headers["etag"] for page in PAGES}
            tracker.track("cart.abandoned", {})
            for page, tag in tags.items():
                assert board.get(page, ("If-None-Match", tag)).status == 200, page


def test_pages_and_colours_have_different_tags(board: RunningDashboard) -> None:
    """Another query is another page."""
    tags = {board.get(page).headers["etag"] for page in (*PAGES, "/events?type=llm.used")}
    assert len(tags) == len(PAGES) + 1


def test_a_figure_that_takes_long_comes_later_and_changes_the_version() -> None:
    """So a page that said it is not ready asks again and gets it."""
    parts, go = Parts(), threading.Event()

    def slow() -> int:
        go.wait(10)
        return 7

    first = parts.get("outbox", "figure", slow, monotonic())
    version = parts.version("outbox")
    assert (first.ready, first.awaited, first.value) == (False, True, None)
    go.set()
    then = parts.get("outbox", "figure", slow, monotonic() + 10)
    assert (then.ready, then.value) == (True, 7)
    assert parts.version("outbox") > version
    parts.close()


def test_a_figure_that_becomes_ready_gives_its_page_another_tag(talked: APIConfig) -> None:
    """Nothing else has changed: by the old tag the page would never show it."""
    go = threading.Event()

    def checks(*_: object) -> list[Check]:
        go.wait(10)
        return [Check("disk", "ok", "turns")]

    with running(path_of(talked), Examination(checks)) as board:
        first = board.get("/health")
        assert 'data-awaited="missing"' in first.text
        go.set()
        assert "turns" in board.settled("/health").text
        assert board.get("/health", ("If-None-Match", tag_on(first.text))).status == 200


def test_a_figure_is_worked_out_once_for_everybody() -> None:
    """And while it is fresh, not again."""
    parts, calls, go = Parts(), [], threading.Event()

    def count() -> int:
        calls.append(1)
        go.wait(10)
        return len(calls)

    for _ in range(5):
        parts.get("outbox", "figure", count, monotonic())
    go.set()
    assert parts.get("outbox", "figure", count, monotonic() + 10).value == 1
    assert parts.get("outbox", "figure", count, monotonic() + 10).value == 1
    parts.close()


def test_a_figure_that_is_quick_is_never_older_than_its_source() -> None:
    """And one that takes long is said to be old, so that the page asks again."""
    parts, calls = Parts(), []
    go = threading.Event()

    def quick() -> int:
        calls.append(1)
        return len(calls)

    def slow() -> int:
        go.wait(0.2)
        return quick()

    for number in (1, 2, 3):
        found = parts.get("outbox", "quick", quick, monotonic() + 10, f"stamp {number}")
        assert (found.value, found.awaited) == (number, False)
    assert parts.get("outbox", "quick", quick, monotonic() + 10, "stamp 3").value == 3
    assert parts.get("outbox", "slow", slow, monotonic() + 10, "stamp 3").value == 4
    old = parts.get("outbox", "slow", slow, monotonic() + 10, "stamp 4")
    assert (old.value, old.awaited) == (4, True)
    parts.close()


def test_a_figure_that_takes_long_does_not_keep_the_program_from_ending() -> None:
    """One over a million events takes a minute: nobody waits for it after Ctrl-C."""
    parts, go, done = Parts(), threading.Event(), threading.Event()

    def slow() -> None:
        go.wait()
        done.set()

    parts.get("outbox", "figure", slow, monotonic())
    parts.close()
    assert not done.is_set()
    go.set()
    assert done.wait(10)


def test_a_figure_that_fails_fails_where_it_is_asked_for() -> None:
    """Not silently, and not for ever."""
    parts = Parts()
    with pytest.raises(ZeroDivisionError):
        parts.get("outbox", "figure", lambda: 1 / 0, monotonic() + 10)
    parts.close()


def test_without_a_script_a_page_that_waits_loads_itself_again(
    board: RunningDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that does not wait stays."""
    answer = board.get("/")
    waits = '<noscript><meta http-equiv="refresh"' in answer.text
    assert waits == ('data-awaited="missing"' in answer.text)


def test_two_viewers_and_writers_at_once(tmp_path: Path) -> None:
    """No error, and no account that is older than what was logged before it was asked for."""
    config = quick(tmp_path)
    wrong: list[object] = []
    with (
        Tracker(config, destination=RecordingDestination) as tracker,
        running(path_of(config)) as board,
    ):
        done = threading.Event()

        def write() -> None:
            for number in range(40):
                talk(tracker, f"session-{number}")
            done.set()

        def look() -> None:
            while not done.is_set():
                before = tracker.health().accepted
                for page in PAGES:
                    answer = board.get(page)
                    if answer.status != 200:
                        wrong.append((page, answer.status))
                found = re.search(r"<dt>accepted</dt><dd>([\d,]+)</dd>", board.get("/").text)
                if found is None or int(found[1].replace(",", "")) < before:
                    wrong.append((before, found))

        threads = [threading.Thread(target=each) for each in (write, look, look)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
