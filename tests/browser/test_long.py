"""Whatever the length of a name and the size of a number, a page keeps its shape at every width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.browser.conftest import Visitor
from tests.contract.pages.conftest import path_of
from tests.contract.pages.test_figures import Away, RefusingDestination
from tests.support.dashboard import PAGES, RunningDashboard, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "w" * 190
ARABIC = "وكيل المبيعات في المتجر الكبير"
NAMES = (LONG, ARABIC, "🤖👩‍👩‍👧‍👦🏳️‍🌈" * 9, "顧客服務代理人" * 20)
BILLIONS = 4_000_000_000
HEIGHT = 844
LEAST_TEXT = 8.5
"""Pixels: what is smaller on a phone is not read."""

# Boxes that nothing may stick out of, unless something in them scrolls; and the texts of charts.
SHAPE = """() => {
  const wrong = [], boxes = ".card, .account, .tiles > div, aside, td, th, .facts > div";
  const card = (e) => e.closest(boxes);
  const scrolls = (e, box) => {
    for (let p = e.parentElement; p && p !== box; p = p.parentElement) {
      if (/auto|scroll/.test(getComputedStyle(p).overflowX)) return true;
    }
    return false;
  };
  if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page scrolls sideways');
  for (const e of document.querySelectorAll('main *')) {
    const box = card(e.parentElement), at = e.getBoundingClientRect();
    if (!box || !at.width || !e.checkVisibility() || scrolls(e, box)) continue;
    if (e.closest('.visually-hidden') || e.closest('svg svg')) continue;
    const around = box.getBoundingClientRect();
    if (at.right > around.right + 1 || at.left < around.left - 2) {
      wrong.push(`${e.tagName} ${e.textContent.slice(0, 40)} sticks out of ${box.className}`);
    }
  }
  for (const e of document.querySelectorAll('.figure')) {
    if (e.scrollWidth > e.clientWidth) wrong.push(`${e.textContent} is wider than its tile`);
  }
  for (const e of document.querySelectorAll('.brand a, nav a, .choices a, button, thead th')) {
    const lines = e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight);
    if (lines > 4) wrong.push(`${e.textContent} is torn`);
  }
  for (const e of document.querySelectorAll('svg.chart text')) {
    const drawing = e.closest('svg.chart');
    const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
    const size = parseFloat(getComputedStyle(e).fontSize) * scale;
    if (e.checkVisibility() && size < LEAST) wrong.push(`${e.textContent} has ${size} px`);
  }
  return wrong;
}""".replace("LEAST", str(LEAST_TEXT))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings of an outbox in which everything is long or large."""
    folder: Path = tmp_path_factory.mktemp("long") / ("a-long-folder-" * 9)
    made = quick(folder, client_id="kiosk-" + "k" * 100, environment="e" * 90, release="r" * 90)
    with Tracker(made, destination=RecordingDestination) as tracker:
        for name in NAMES:
            talk(tracker, name)
        tracker.flush(10)
    with Tracker(made, destination=RefusingDestination) as tracker:
        tracker.log_user_message(LONG, "refused" * 99)
        tracker.flush(10)
    with Tracker(made, destination=Away) as tracker:
        tracker.log_user_message(LONG, "waits" * 99)
    return made


def talk(tracker: Tracker, name: str) -> None:
    """Log a conversation with a name in each field, and numbers that no tile was made for."""
    with tracker.conversation(name, user_id=name, session_id=name) as c:
        c.user(name * 5)
        c.agent(name, response_time_ms=9e7, tokens_used=BILLIONS, model=name[:120])
        with tracker.span(name[:120], input={name: name}), tracker.span("within"):
            c.tool(name[:90], {name: name}).__enter__().__exit__(None, None, None)
        c.end(outcome=name[:90])
    tracker.llm.record_usage(
        "p", name[:90], BILLIONS, BILLIONS, session_id=name, agent_id=name, cost_usd=1_123_456.78
    )
    tracker.record_score(name[:90], name[:90], session_id=name, source=name[:90], comment=name)
    tracker.record_score("large", 1e12, session_id=name)
    tracker.operations.register_agent(name, name=name, version=name[:60])
    tracker.operations.log_activity(name, name)


@pytest.fixture(scope="module")
def board(config: Any) -> Iterator[RunningDashboard]:
    with running(path_of(config)) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def paths(config: Any) -> list[str]:
    """The pages, with those of each conversation, its traces and its events."""
    found = [*PAGES, "/?period=30d", "/?period=24h", "/usage?by=session", "/search?text=w"]
    found += [f"/conversation?id={quote(name)}" for name in NAMES]
    with Tracker(config, destination=Away) as tracker:
        entries = tracker.get_conversation_history(LONG)
    return [*found, *(f"/event?id={entry.event_id}" for entry in entries)]


@pytest.mark.parametrize("width", [1440, 700, 320])
def test_every_page_keeps_its_shape(
    chromium: Any, board: RunningDashboard, paths: list[str], width: int
) -> None:
    """Nothing scrolls sideways, sticks out of its box, or is too small to read."""
    visitor = Visitor(chromium, board, viewport={"width": width, "height": HEIGHT})
    traces: set[str] = set()
    for path in paths:
        board.settled(path)
        page = visitor.go(path)
        assert page.evaluate(SHAPE) == [], path
        traces |= {link.get_attribute("href") for link in page.locator("#facts .wide a").all()}
    assert len(traces) >= len(NAMES)
    for path in sorted(traces):
        assert visitor.go(path).evaluate(SHAPE) == [], path
    visitor.leave()


def test_a_text_has_the_side_of_its_own_direction(chromium: Any, board: RunningDashboard) -> None:
    """Arabic begins at the right, whatever the page around it does."""
    visitor = Visitor(chromium, board)
    page = visitor.go(f"/conversation?id={quote(ARABIC)}")
    text = page.locator(".entry.agent .text > bdi")
    assert text.evaluate("each => getComputedStyle(each).direction") == "rtl"
    assert (
        text.bounding_box()["width"] == page.locator(".entry.agent .text").bounding_box()["width"]
    )
    visitor.leave()


def test_the_current_page_is_in_sight_on_a_phone(chromium: Any, board: RunningDashboard) -> None:
    """In the bar that scrolls, the last one too."""
    visitor = Visitor(chromium, board, viewport={"width": 390, "height": HEIGHT})
    page = visitor.go("/health")
    box = page.locator(".rail nav a[aria-current]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    visitor.leave()


def test_a_page_knows_when_it_is_complete(chromium: Any, board: RunningDashboard) -> None:
    """What was awaited when it was opened is not awaited for ever."""
    visitor = Visitor(chromium, board)
    page = visitor.go("/")
    page.evaluate("document.body.dataset.awaited = 'missing'")
    page.wait_for_selector('body[data-awaited=""]')
    visitor.leave()
