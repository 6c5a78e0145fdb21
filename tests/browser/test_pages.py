"""The pages in a real browser: hostile text, no script, keyboard, phone, accessibility."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Visitor
from tests.contract.pages.conftest import path_of
from tests.contract.pages.test_hostile import HOSTILE, Refusing
from tests.support.dashboard import PAGES, running
from tests.support.settings import quick
from tracker import Tracker

if TYPE_CHECKING:
    from tests.support.dashboard import RunningDashboard

ALL = (*PAGES, "/conversation?id=order-7", "/nothing")
BUSY = (*PAGES, f"/conversation?id={'refused-' * 12}", f"/conversation?id={'waits-' * 12}")
AXE = Path(os.environ.get("AXE", "node_modules/axe-core/axe.min.js"))
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def test_every_page_opens_in_silence(visitor: Visitor) -> None:
    """No error, no refusal by the policy, and no other host."""
    for path in PAGES:
        visitor.go(path)
        assert visitor.page.locator("h1").count() == 1


def test_hostile_text_stays_text(chromium: Any, tmp_path: Path) -> None:
    """On every page that shows it, in lists and on its own."""
    config = quick(tmp_path, redaction="off")
    session = HOSTILE[:60]
    with Tracker(config, destination=Refusing) as tracker:
        tracker.start_conversation(HOSTILE[:50], user_id=HOSTILE[:70], session_id=session)
        tracker.log_user_message(session, HOSTILE)
        tracker.log_tool_call(session, HOSTILE[:50], {HOSTILE: HOSTILE}, error=HOSTILE)
        tracker.operations.log_activity(HOSTILE[:50], HOSTILE)
        tracker.end_conversation(session, outcome=HOSTILE[:60])
        tracker.flush(10)
    with running(path_of(config)) as board:
        visitor = Visitor(chromium, board)
        for path in PAGES:
            visitor.go(path)
        page = visitor.go("/conversations")
        page.locator("main .said").first.click()
        assert page.locator(".entry.user .text").inner_text().startswith("U+202E")
        assert page.locator("main img, main script, main style").count() == 0
        page.locator("summary").first.click()
        visitor.leave()


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_does_not_scroll_sideways(
    chromium: Any, board: RunningDashboard, path: str, width: int
) -> None:
    """And the first line is seen at once."""
    visitor = Visitor(chromium, board, viewport={"width": width, "height": 844})
    page = visitor.go(path)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    box = page.locator("h1").bounding_box()
    assert box["y"] + box["height"] < 844
    visitor.leave(expecting="404" if path == "/nothing" else "")


@pytest.mark.parametrize("width", [390, 320])
def test_nor_does_it_where_much_is_wrong(chromium: Any, busy: RunningDashboard, width: int) -> None:
    """Commands, dead letters and long ids stay within their boxes."""
    visitor = Visitor(chromium, busy, viewport={"width": width, "height": 844})
    for path in BUSY:
        page = visitor.go(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        if path.startswith("/conversation?"):  # on a phone above the text, in full
            assert page.locator("#facts dt:has-text('Session id')").is_visible()
    visitor.leave()


def words(text: str) -> list[str]:
    """Return the words of a page, but for how long ago something was: one looks after the other."""
    return re.findall(r"[a-z]+", re.sub(r"\bnow\b|\d+ \w+ ago", "", text))


@pytest.mark.parametrize("path", [path for path in ALL if path != "/nothing"])
def test_without_a_script_everything_is_there(
    chromium: Any, board: RunningDashboard, path: str
) -> None:
    """The same words, links that lead on, forms that work."""
    with_script, without = (
        Visitor(chromium, board),
        Visitor(chromium, board, java_script_enabled=False),
    )
    board.settled("/agents")  # a list to choose from is on other pages once they are known
    board.settled(path)
    said = [words(each.go(path).locator("main").inner_text()) for each in (with_script, without)]
    assert said[0][:20] == said[1][:20]
    assert not without.page.locator(".contact").is_visible()  # it says that the page is live
    without.page.locator('.rail nav a[data-name="usage"]').click()
    board.settled("/usage?by=agent")
    without.page.locator('main a:has-text("by agent")').click()
    assert "agent_123" in without.page.locator("main").inner_text()
    without.page.locator("#theme").select_option("dark")
    without.page.locator("#theme-set").click()
    assert without.page.locator("html").get_attribute("data-theme") == "dark"
    for each in (with_script, without):
        each.leave()


def test_the_keyboard_alone_reaches_everything(visitor: Visitor) -> None:
    """Tab goes to the skip link first; keys lead to pages, rows and filters."""
    page = visitor.go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.wait_for_url("**/conversations")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/conversation?id=order-7")
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url("**/delivery")
    page.go_back()
    page.go_back()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "agent"
    page.keyboard.type("agent_123")
    page.keyboard.press("Tab")  # to the user, where Enter sends the form
    page.keyboard.press("Enter")
    page.wait_for_url("**agent=agent_123*")
    assert page.locator("tbody tr").count() == 1


def test_single_keys_can_be_switched_off(visitor: Visitor) -> None:
    """WCAG 2.1.4: some people's tools type them."""
    page = visitor.go("/events")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.keyboard.press("l")
    page.reload()
    assert page.url.endswith("/events")
    assert page.locator("#contact").inner_text() == "Live"
    assert not page.locator("#keys-on").is_checked()


def test_colours_are_chosen_at_once(visitor: Visitor) -> None:
    """And kept."""
    page = visitor.go("/usage")
    page.locator("#theme").select_option("dark")
    page.wait_for_selector('html[data-theme="dark"]')
    assert page.url.endswith("/usage")
    assert visitor.go("/").locator("html").get_attribute("data-theme") == "dark"


def test_paper_is_light_whatever_was_chosen_for_the_screen(visitor: Visitor) -> None:
    """Dark ink on white, without the rail, and with what is folded on a screen."""
    page = visitor.go("/")
    page.locator("#theme").select_option("dark")
    page.wait_for_selector('html[data-theme="dark"]')
    page.emulate_media(media="print")
    colour = "each => getComputedStyle(each)"
    assert page.locator(".account").evaluate(f"{colour}.backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("h1").evaluate(f"{colour}.color") == "rgb(0, 0, 0)"
    assert page.locator("#figures table").is_visible()
    assert not page.locator(".rail").is_visible()


def test_charts_take_the_colours_that_are_forced(chromium: Any, board: RunningDashboard) -> None:
    """Their texts too, which a browser leaves as they are."""
    visitor = Visitor(chromium, board, forced_colors="active")
    board.settled("/")
    page = visitor.go("/")
    text = page.locator("h1").evaluate("each => getComputedStyle(each).color")
    label = page.locator("svg.chart .label").first
    assert label.evaluate("each => getComputedStyle(each).fill") == text
    visitor.leave()


def test_a_copy_is_in_the_clipboard(chromium: Any, board: RunningDashboard) -> None:
    """As JSON, of what is on the page."""
    visitor = Visitor(chromium, board, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.go("/conversation?id=order-7")
    page.locator('[data-copy="json"]').click()
    page.wait_for_selector("#contact:has-text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert '"session_id": "order-7"' in copied
    visitor.leave()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: npm install axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_in_the_way_of_anybody(
    chromium: Any, board: RunningDashboard, scheme: str, width: int
) -> None:
    """axe finds nothing on any page: WCAG 2.2, A and AA, and good practice."""
    viewport = {"width": width, "height": 900}
    visitor = Visitor(chromium, board, color_scheme=scheme, viewport=viewport)
    for path in ALL:
        assert violations(visitor.go(path)) == [], path
    visitor.leave(expecting="404")


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: npm install axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nor_where_much_is_wrong(chromium: Any, busy: RunningDashboard, scheme: str) -> None:
    """Warnings, refusals and what waits are told to everybody."""
    visitor = Visitor(chromium, busy, color_scheme=scheme)
    for path in BUSY:
        assert violations(visitor.go(path)) == [], path
    visitor.leave()


def violations(page: Any) -> list[Any]:
    """Return what axe finds on a page that is complete."""
    page.wait_for_selector('body[data-awaited=""]')
    page.evaluate(AXE.read_text("utf-8"))
    script = "rules => axe.run({runOnly: rules}).then(found => found.violations)"
    found = page.evaluate(script, RULES)
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
