"""The pages of a collector in a real browser: signing in, the clients, one client's own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Visitor
from tests.browser.test_long import BILLIONS, LONG, SHAPE
from tests.browser.test_pages import AXE, violations
from tests.contract.collector.ui.conftest import TRACE_ID, said
from tests.contract.collector.ui.test_completeness import with_holes
from tests.contract.collector.ui.test_hostile import NAME
from tests.contract.pages.test_hostile import HOSTILE
from tests.support.collector import CollectorClient, CollectorProcess, EventChain, ForkedCollector
from tracker.collector.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG_NAME = "kiosk-" + "k" * 120
OF_ALL = ("/ui/clients", "/ui/keys")
OF_ONE = tuple(
    f"/ui/{name}" + ("&" if "?" in name else "?") + "client=kiosk-17"
    for name in ("", "conversations", "usage", "agents", "scores", "events", "rejections",
                 "erasures", "conversation?id=order-session", f"trace?id={TRACE_ID}")
)  # fmt: skip


class Person(Visitor):
    """Somebody who signs in with a key."""

    def __init__(self, browser: Any, collector: CollectorProcess, key: str, **options: Any) -> None:
        self._key = key
        board: Any = collector  # it has a port too
        super().__init__(browser, board, **options)

    def arrive(self) -> None:
        """Fill in the form."""
        self.page.goto(self.address("/ui/"))
        self.page.wait_for_url(self.address("/ui/login"))
        self.page.get_by_label("API key").fill(self._key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("#pause:not([hidden]), h1")


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One with a client that has gaps, one that is complete, and one that is hostile."""
    with ForkedCollector(tmp_path_factory.mktemp("team")) as process:
        kiosk = process.client("kiosk-17")
        with_holes(kiosk)
        said(kiosk, "order")
        chain = EventChain()
        process.client("kiosk-18").send(chain, chain.events(12))
        with process.store() as store:
            key, _ = Keys(store).create(NAME, "a label <b>")
        evil = CollectorClient(process.url, NAME, key)
        evil.headers["X-Client-ID"] = NAME.encode().decode("latin-1")
        said(evil, HOSTILE)
        yield process


@pytest.fixture
def operator(chromium: Any, collector: CollectorProcess) -> Iterator[Person]:
    found = Person(chromium, collector, collector.create_key(None))
    yield found
    found.leave()


def test_an_operator_comes_from_the_clients_to_a_conversation(operator: Person) -> None:
    """By links alone; and out again."""
    page = operator.page
    page.wait_for_url(operator.address("/ui/clients"))
    page.locator("li:has-text('4 to 5: missing')").wait_for()
    page.get_by_role("link", name="kiosk-17").click()
    page.get_by_role("heading", name="2 events are missing.").wait_for()
    page.get_by_role("link", name="Conversations", exact=True).click()
    page.locator("main .said").first.click()
    page.get_by_text("order said this").wait_for()
    page.get_by_role("link", name="Clients", exact=True).click()
    page.wait_for_url(operator.address("/ui/clients"))
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(operator.address("/ui/login"))
    page.go_back()
    page.wait_for_url(operator.address("/ui/login"))


def test_a_client_is_led_to_its_own_pages(chromium: Any, collector: CollectorProcess) -> None:
    """A wrong key first, as people do."""
    key = collector.create_key("kiosk-18")
    person = Person(chromium, collector, key[:-1])
    page = person.page
    page.get_by_text("This key is unknown").wait_for()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Every event is here, up to the newest number.").wait_for()
    assert page.get_by_role("link", name="Clients", exact=True).count() == 0
    person.leave(expecting="403")


def test_the_list_is_live(operator: Person, collector: CollectorProcess) -> None:
    """What another client sends appears, without a word of the page's own."""
    page = operator.go("/ui/clients")
    chain = EventChain()
    collector.client("kiosk-live").send(chain, chain.events(3))
    page.get_by_role("link", name="kiosk-live").wait_for()


def test_a_page_says_that_the_key_was_revoked(chromium: Any, collector: CollectorProcess) -> None:
    """It keeps what it shows, and says that this is old."""
    key = collector.create_key("kiosk-18")
    person = Person(chromium, collector, key)
    person.page.get_by_role("heading", name="Every event is here").wait_for()
    with collector.store() as store:
        found = Keys(store).find(key)
        assert found is not None
        Keys(store).revoke(found.id)
    person.page.locator("#contact:has-text('Signed out')").wait_for()
    person.leave(expecting="401")


def test_hostile_names_and_texts_stay_text(operator: Person) -> None:
    """On the pages of all, and on those of that client."""
    page = operator.go("/ui/keys")
    page.get_by_role("link", name=NAME).first.click()
    page.get_by_role("link", name="Erasures", exact=True).click()
    assert page.locator("main img, main script, main style").count() == 0
    assert "<script>alert(1)</script>" in page.locator("main").inner_text()


@pytest.mark.parametrize("width", [1440, 700, 320])
def test_every_page_keeps_its_shape(chromium: Any, collector: CollectorProcess, width: int) -> None:
    """However long the names of a client are, and however many holes there are."""
    with collector.store() as store:
        key, _ = Keys(store).create(LONG_NAME, "label" * 40)
    client, chain = CollectorClient(collector.url, LONG_NAME, key), EventChain()
    fields: dict[str, Any] = {"agent_id": LONG, "session_id": LONG, "user_id": LONG}
    used = {"model": LONG, "total_tokens": BILLIONS, "cost_usd": 1_123_456.78}
    sent = [
        chain.event({"role": "user", "content": LONG * 9}, **fields),
        chain.event(used, type="llm.used", **fields),
        chain.event(
            {"name": LONG, "value": 1e12, "comment": LONG}, type="score.recorded", **fields
        ),
        chain.event({"subject": LONG, "reason": LONG, "event_ids": []}, type="compliance.erased"),
        {**chain.event(), "digest": "0" * 64},
        *chain.events(90)[::2],
    ]
    client.send(chain, sent)
    size = {"width": width, "height": 844}
    person = Person(chromium, collector, collector.create_key(None), viewport=size)
    own = [each.replace("kiosk-17", LONG_NAME).replace("order-session", LONG) for each in OF_ONE]
    for path in (*OF_ALL, *(each for each in own if TRACE_ID not in each)):
        page = person.go(path)
        page.wait_for_selector('body[data-awaited=""]')
        assert page.evaluate(SHAPE) == [], path
    person.leave()


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_does_not_scroll_sideways(
    chromium: Any, collector: CollectorProcess, width: int
) -> None:
    """And the first line is seen at once."""
    size = {"width": width, "height": 844}
    person = Person(chromium, collector, collector.create_key(None), viewport=size)
    for path in (*OF_ALL, *OF_ONE):
        page = person.go(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        box = page.locator("h1").bounding_box()
        assert box["y"] + box["height"] < 844, path
    person.leave()


def test_without_a_script_everything_is_there(chromium: Any, collector: CollectorProcess) -> None:
    """Signing in, the holes in words, the check on a button."""
    person = Person(chromium, collector, collector.create_key(None), java_script_enabled=False)
    page = person.go("/ui/?client=kiosk-17")
    assert "4 to 5: missing" in page.locator("main").inner_text()
    page.get_by_role("button", name="Check again").first.click()
    page.wait_for_url("**/ui/?client=kiosk-17")
    person.leave()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there: npm install axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_in_the_way_of_anybody(
    chromium: Any, collector: CollectorProcess, scheme: str, width: int
) -> None:
    """axe finds nothing on any page, nor on the form."""
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    person = Person(chromium, collector, collector.create_key(None), **options)
    person.page.locator("li:has-text('4 to 5: missing')").wait_for()
    for path in (*OF_ALL, *OF_ONE, "/ui/login"):
        assert violations(person.go(path)) == [], path
    person.leave()


def test_a_form_that_failed_says_so_to_everybody(
    chromium: Any, collector: CollectorProcess, tmp_path: Path
) -> None:
    """The field has the focus's name, and the problem is an alert."""
    del tmp_path
    person = Person(chromium, collector, "guess")
    assert "unknown" in person.page.get_by_role("alert").inner_text()
    person.leave(expecting="403")
