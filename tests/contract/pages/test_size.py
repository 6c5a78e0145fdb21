"""Pages are small, whatever was said: below 60 kB, and all files of the site together below 30."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of
from tests.support.dashboard import PAGES, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.pages.static_files import HASHED
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.dashboard import RunningDashboard

PAGE_BYTES, FILES_BYTES = 60_000, 30_000
WORDS = "Where is order 7? " * 20_000
LENGTHS = {"short": 100, "long": 1_300, "huge": 200_000}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """A dashboard of many conversations, three of which are long, each in its own way."""
    config = quick(tmp_path_factory.mktemp("busy"))
    with Tracker(config, destination=RecordingDestination) as tracker:
        for name, length in LENGTHS.items():
            with tracker.conversation("agent-1", user_id="u", session_id=name) as c:
                for number in range(1 if name == "huge" else 120):
                    (c.agent if number % 2 else c.user)(WORDS[:length])
                with c.tool("find", {"text": WORDS[:length]}) as call:
                    call.result = {"text": WORDS[:length]}
        for number in range(60):
            with tracker.conversation(f"agent-{number}", user_id="u" * 40) as c:
                c.user(WORDS[:300])
                c.end(outcome=f"outcome-{number}", quality_score=3)
    with running(path_of(config)) as found:
        yield found


@pytest.mark.parametrize("page", [*PAGES, "/search?text=order", "/events?type=message.*"])
def test_pages_are_small(busy: RunningDashboard, page: str) -> None:
    """With as many rows as a page has."""
    assert len(busy.settled(page).text.encode()) < PAGE_BYTES


@pytest.mark.parametrize("name", LENGTHS)
def test_a_transcript_is_small_and_leads_to_all_of_it(busy: RunningDashboard, name: str) -> None:
    """To earlier entries, and from each message that it cuts to all of the text."""
    answer = busy.get("/conversation", id=name)
    assert len(answer.text.encode()) < PAGE_BYTES
    assert "Earlier entries" in answer.text
    links = re.findall(r'href="(/event\?[^"]+)">All of it<', answer.text)
    assert bool(links) == (name == "huge")
    for link in links:
        assert_is_whole(busy, unescape(link))


def assert_is_whole(busy: RunningDashboard, link: str) -> None:
    """The parts of an event's data are all of it, one after the other, each on a small page."""
    seen, following = "", link
    while following:
        page = busy.get(following).text
        assert len(page.encode()) < PAGE_BYTES
        found = re.search(r"<h2>Data</h2><pre[^>]*><bdi>(.*?)</bdi></pre>", page, re.DOTALL)
        assert found is not None
        seen += unescape(found[1])
        further = re.search(r'<a rel="next" href="([^"]+)">Further', page)
        following = unescape(further[1]) if further else ""
    assert WORDS[: LENGTHS["huge"]] in seen


def test_a_few_agents_are_a_list_and_many_are_not(
    busy: RunningDashboard, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One chooses among sixty; a list of hundreds would outweigh the page, so one says the id."""
    busy.settled("/agents")
    page = busy.get("/conversations", agent="agent-7").text
    assert '<option value="agent-7" selected>agent-7</option>' in page
    assert page.count('<option value="agent-') == 60
    config = quick(tmp_path_factory.mktemp("many"))
    with Tracker(config, destination=RecordingDestination) as tracker:
        for number in range(101):
            tracker.operations.update_agent_status(f"agent-{number}", "busy")
    with running(path_of(config)) as board:
        board.settled("/agents")
        page = board.get("/conversations", agent="agent-7").text
    assert '<input name="agent" value="agent-7"' in page


def test_the_files_of_the_site_are_small(busy: RunningDashboard) -> None:
    """Style, script and picture together."""
    found = [busy.get(f"/static/{name}").text.encode() for name in HASHED.values()]
    assert sum(map(len, found)) < FILES_BYTES
