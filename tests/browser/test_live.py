"""A page that is open stays current, and disturbs nobody who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Visitor
from tests.contract.pages.conftest import path_of, talk
from tests.support.dashboard import running
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.dashboard import RunningDashboard
    from tracker.config import APIConfig

SOON = 8_000
"""Milliseconds within which a change has to be seen."""


@pytest.fixture
def tracker(config: APIConfig) -> Iterator[Tracker]:
    with Tracker(config, destination=RecordingDestination) as made:
        yield made


def test_the_account_follows(visitor: Visitor, tracker: Tracker) -> None:
    """Without a reload, and the window's place stays."""
    page = visitor.go("/")
    page.evaluate("window.mark = 1; scrollTo(0, 300)")
    before = page.locator(".equation dd").first.inner_text()
    talk(tracker, "order-8")
    tracker.flush(10)
    page.locator(f".equation dd:not(:text-is('{before}'))").first.wait_for(timeout=SOON)
    page.locator("#newest a[href*='order-8']").first.wait_for(timeout=SOON)
    assert page.evaluate("[window.mark, scrollY]") == [1, 300]


def test_what_is_unfolded_or_selected_is_left_alone(visitor: Visitor, tracker: Tracker) -> None:
    """It is replaced once it is no longer in use."""
    page = visitor.go("/")
    page.locator("#figures summary").click()
    page.mouse.move(5, 5)
    talk(tracker, "order-8")
    page.locator("#newest a[href*='order-8']").first.wait_for(timeout=SOON)
    assert page.locator("#figures").get_attribute("open") is not None
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#newest tbody'))")
    talk(tracker, "order-9")
    page.locator(".equation").wait_for()
    page.wait_for_timeout(3_000)
    assert page.locator("#newest a[href*='order-9']").count() == 0
    page.evaluate("getSelection().removeAllRanges()")
    page.locator("#newest a[href*='order-9']").first.wait_for(timeout=SOON)


def test_what_has_the_focus_is_left_alone(visitor: Visitor, tracker: Tracker) -> None:
    """A link that somebody is about to follow does not move."""
    page = visitor.go("/conversations")
    page.locator(".said").first.focus()
    talk(tracker, "order-8")
    page.wait_for_timeout(3_000)
    assert page.evaluate("document.activeElement.textContent").strip() != ""
    assert page.evaluate("document.activeElement.className") == "said"
    assert page.locator(".said").count() == 1
    page.evaluate("document.activeElement.blur()")
    page.locator(".said").nth(1).wait_for(timeout=SOON)


def test_a_transcript_never_replaces_itself(visitor: Visitor, tracker: Tracker) -> None:
    """It says how many entries are new, and shows them when it is asked to."""
    page = visitor.go("/conversation?id=order-7")
    page.locator(".call summary").click()
    page.mouse.move(5, 5)
    count = page.locator("#entries > article").count()
    tracker.log_user_message("order-7", "Are you still there?")
    tracker.log_agent_message("order-7", "Yes.")
    button = page.locator("#news button:has-text('2 new entries, show')")
    button.wait_for(timeout=SOON)
    assert page.locator("#entries > article").count() == count
    button.click()
    assert page.locator("#entries > article").count() == count + 2
    assert page.locator("#entries > article").last.inner_text().endswith("Yes.")
    assert page.locator(".call").get_attribute("open") is not None


def test_it_can_be_paused(visitor: Visitor, tracker: Tracker) -> None:
    """And goes on where it is resumed."""
    page = visitor.go("/conversations")
    page.locator("#pause").click()
    assert page.locator("#contact").inner_text() == "Paused"
    talk(tracker, "order-8")
    page.wait_for_timeout(3_000)
    assert page.locator(".said").count() == 1
    page.mouse.move(5, 5)
    page.locator("#pause").click()
    page.locator(".said").nth(1).wait_for(timeout=SOON)
    assert page.locator("#contact").inner_text() == "Live"


def test_an_outbox_that_is_gone_is_said_in_place(visitor: Visitor, config: APIConfig) -> None:
    """On the page that is open."""
    page = visitor.go("/")
    path_of(config).unlink()
    page.locator("h1:has-text('cannot be read')").wait_for(timeout=SOON)
    assert page.locator("#contact").inner_text() == "Live"
    visitor.forgive("503")


def test_lost_contact_is_said(chromium: Any, config: APIConfig) -> None:
    """The page stays as it was; how old it is cannot be mistaken."""
    with running(path_of(config)) as board:
        visitor = Visitor(chromium, board)
        page = visitor.go("/")
    page.locator("#contact:has-text('Contact lost')").wait_for(timeout=3 * SOON)
    assert page.locator("h1").inner_text() == "Everything is delivered."
    visitor.leave(expecting="ERR_CONNECTION_REFUSED")


def test_an_idle_page_asks_for_little(chromium: Any, board: RunningDashboard) -> None:
    """Nearly all answers are 304, without a body."""
    visitor = Visitor(chromium, board)
    statuses: list[int] = []
    page = visitor.go("/events")
    page.on("response", lambda response: statuses.append(response.status))
    page.wait_for_timeout(5_000)
    assert statuses
    assert statuses.count(200) <= 2
    visitor.leave()
