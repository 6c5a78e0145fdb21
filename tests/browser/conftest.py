"""A real Chromium, and what every test of a page must leave: a silent console and no stranger.

It needs the extra ``[browser]`` and Chromium: Debian's, or the one that ``CHROMIUM`` names.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.pages.conftest import path_of, talk
from tests.contract.pages.test_figures import Away, RefusingDestination
from tests.support.dashboard import RunningDashboard, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.config import APIConfig

_USUAL = "/usr/bin/chromium"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if "/tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser for all tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("the extra [browser] is not installed")
    program = os.environ.get("CHROMIUM", _USUAL)
    if shutil.which(program) is None:
        pytest.skip(f"there is no Chromium at {program}; CHROMIUM names another one")
    with sync_playwright() as playwright:
        # As root, as in a container, Chromium starts only without its sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class Visitor:
    """A person with a browser, who has opened the link.

    Attributes:
        page: The browser's page.
    """

    def __init__(self, browser: Any, board: RunningDashboard, **options: Any) -> None:
        self._board = board
        self._told: list[str] = []
        self._asked: list[str] = []
        self._forgiven = ""
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self._told.append(message.text))
        self.page.on("pageerror", lambda error: self._told.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self._asked.append(request.url))
        self.arrive()

    def arrive(self) -> None:
        """Open the link."""
        self.page.goto(self._board.link)
        self.page.wait_for_url(self.address("/"))

    def _dismiss(self, dialog: Any) -> None:
        self._told.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self._board.port}{path}"

    def go(self, path: str) -> Any:
        self.page.goto(self.address(path))
        return self.page

    def forgive(self, text: str) -> None:
        """Take no notice of what was complained of with these words."""
        self._forgiven = text

    def leave(self, *, expecting: str = "") -> None:
        """Close the browser's page; nothing was complained of, and nobody else was asked."""
        self.context.close()
        strangers = [url for url in self._asked if not url.startswith(self.address("/"))]
        forgiven = expecting or self._forgiven
        told = [text for text in self._told if not (forgiven and forgiven in text)]
        assert (told, strangers) == ([], [])


@pytest.fixture
def config(tmp_path: Path) -> APIConfig:
    """Settings of an outbox with a conversation that is delivered."""
    made = quick(tmp_path)
    with Tracker(made, destination=RecordingDestination) as tracker:
        talk(tracker)
        tracker.flush(10)
    return made


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[RunningDashboard]:
    """A dashboard of an outbox with dead letters and events that wait, and long words in them."""
    made = quick(tmp_path / ("a-long-name-" * 9))
    with Tracker(made, destination=RefusingDestination) as tracker:
        talk(tracker, "refused-" * 12)
        tracker.flush(10)
    with Tracker(made, destination=Away) as tracker:
        talk(tracker, "waits-" * 12, "w" * 90)
        tracker.log_user_message("waits-" * 12, "w" * 2_000)  # folded: its beginning is a summary
    with running(path_of(made)) as dashboard:
        yield dashboard


@pytest.fixture
def board(config: APIConfig) -> Iterator[RunningDashboard]:
    """A dashboard of it."""
    with running(path_of(config)) as dashboard:
        yield dashboard


@pytest.fixture
def visitor(chromium: Any, board: RunningDashboard) -> Iterator[Visitor]:
    """Somebody who looks at it."""
    found = Visitor(chromium, board)
    yield found
    found.leave()
