"""What an event says is text on every page, whatever it says and wherever it says it."""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from contextlib import closing
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of
from tests.support.dashboard import PAGES, RunningDashboard, running
from tests.support.settings import quick
from tracker import Tracker
from tracker.sync.destination import Delivery, Outcome, Rejection, Upload

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = (
    '\u202e\x1b"><script>alert(1)</script><img src=x onerror=alert(2)>'
    "</bdi></td></pre><style>*{display:none}</style>{{7*7}}{% raw %}"
    "gnp.exe\u2066\x1b[31m\x7f\u2028' onmouseover='alert(3)' javascript:alert(4)"
)
KEPT = {"\n", "\t", "\u200c", "\u200d"}
VOID = {"meta", "link", "input", "br", "img"}
ALLOWED_SCRIPT = re.compile(r"/static/app\.[0-9a-f]{12}\.js")


class Refusing:
    """A server whose words are hostile too."""

    def send(self, upload: Upload) -> Delivery:
        refused = [Rejection(each, HOSTILE[:40], HOSTILE) for each in upload.event_ids[:1]]
        return Delivery(Outcome.DELIVERED, rejected=tuple(refused))

    def close(self) -> None: ...


class Inside(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes |= given.keys()
        if tag == "script":
            self.scripts.append(given.get("src") or "inline")
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """A dashboard over an outbox in which every text is hostile, and some rows are damaged."""
    config = quick(
        tmp_path_factory.mktemp("hostile"), client_id="kiosk", environment="x", redaction="off"
    )
    with Tracker(config, destination=Refusing) as tracker:
        session = HOSTILE[:60]
        tracker.start_conversation(HOSTILE[:50], user_id=HOSTILE[:70], session_id=session)
        for text in (HOSTILE, "x" * 900_000, "nul \0 here", "``` \n" + HOSTILE):
            tracker.log_user_message(session, text)
        tracker.log_agent_message(session, HOSTILE, model=HOSTILE[:90])
        tracker.log_tool_call(session, HOSTILE[:50], {HOSTILE: HOSTILE}, result=HOSTILE)
        tracker.log_tool_call(session, "broken", {}, error=HOSTILE)
        with tracker.conversation("agent", session_id="other"), tracker.span(HOSTILE[:50]):
            tracker.track("cart.abandoned", {HOSTILE: HOSTILE})
        tracker.llm.record_usage("openai", HOSTILE[:80], 9, 9, session_id=session)
        tracker.record_score(
            "helpful", HOSTILE[:60], session_id=session, source=HOSTILE[:40], comment=HOSTILE
        )
        tracker.operations.register_agent(HOSTILE[:50], name=HOSTILE[:60], version=HOSTILE[:30])
        tracker.operations.log_activity(HOSTILE[:50], HOSTILE)
        tracker.end_conversation(session, outcome=HOSTILE[:60])
        tracker.flush(10)
    damage(path_of(config))
    with running(path_of(config)) as board:
        yield board


def damage(path: object) -> None:
    """Put values of other types into some rows, as a failing disk or a hand does."""
    with closing(sqlite3.connect(str(path))) as connection, connection:
        ids = [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]
        half = json.dumps({"role": "user", "content": "half \ud800 of a pair"})
        connection.execute("UPDATE events SET data = ? WHERE seq = ?", (half, ids[1]))
        connection.execute("UPDATE events SET data = '{' WHERE seq = ?", (ids[3],))
        for column, value in (("timestamp_ms", HOSTILE), ("agent_id", b"\xff\x00"),
                              ("trace", HOSTILE), ("context", HOSTILE)):  # fmt: skip
            connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (value, ids[2]))  # noqa: S608 - ours


def pages_of(board: RunningDashboard) -> list[str]:
    """Return the address of every page there is of this outbox."""
    found, waiting = set(PAGES), list(PAGES)
    while waiting:
        page = board.settled(waiting.pop())
        for link in re.findall(r'href="(/[^"#]*)', page.text):
            address = link.replace("&amp;", "&")
            kind = address.partition("?")[0]
            if kind in ("/conversation", "/event", "/trace") and address not in found:
                found.add(address)
                waiting.append(address)
    return sorted(found)


def test_no_page_holds_anything_but_its_own_elements(hostile: RunningDashboard) -> None:
    """Lists, transcripts, traces, single events, dead letters: each of the pages there are."""
    pages = pages_of(hostile)
    assert {page.partition("?")[0] for page in pages} >= {"/conversation", "/event", "/trace"}
    for address in pages:
        answer = hostile.get(address)
        assert answer.status == 200, address
        inside = Inside()
        inside.feed(answer.text)
        inside.close()
        assert (inside.wrong, inside.open) == ([], []), address
        assert not inside.tags & {"img", "style", "iframe", "object", "embed", "base"}, address
        assert [s for s in inside.scripts if not ALLOWED_SCRIPT.fullmatch(s)] == [], address
        assert not [name for name in inside.attributes if name.startswith(("on", "style"))], address
        assert all(link.startswith(("/", "#")) for link in inside.links), address
        assert "49" not in re.findall(r"\{\{7\*7\}\}|>49<", answer.text), address


def test_no_page_holds_a_character_that_is_not_seen(hostile: RunningDashboard) -> None:
    """Controls and directions are code points, in texts, attributes and titles."""
    for address in pages_of(hostile):
        text = hostile.get(address).text
        unseen = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
        assert unseen <= KEPT, address
    assert "U+202E" in hostile.get("/conversations").text


def test_what_is_asked_for_is_text_too(hostile: RunningDashboard) -> None:
    """The query comes back in forms, links and messages."""
    for name in ("text", "agent", "user", "id", "type", "environment", "release", "session", "by"):
        for page in (*PAGES, "/conversation", "/event", "/trace"):
            answer = hostile.get(page, **{name: HOSTILE})
            assert answer.status in (200, 400, 404)
            inside = Inside()
            inside.feed(answer.text)
            assert not inside.tags & {"img", "style"}
            assert [s for s in inside.scripts if not ALLOWED_SCRIPT.fullmatch(s)] == []


def test_a_copy_is_json_and_nothing_else(hostile: RunningDashboard) -> None:
    """Half of a surrogate pair included, which UTF-8 has no bytes for."""
    answer = hostile.get("/conversation.json", id=HOSTILE[:60])
    assert answer.headers["content-type"] == "application/json"
    assert HOSTILE in [entry["content"] for entry in json.loads(answer.text)["history"]]


@pytest.mark.parametrize(
    "query",
    [
        {"before": "x"},
        {"before": "-1"},
        {"before": "9" * 30},
        {"tag": "nothing"},
        {"agent": "x" * 3_000},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(
    hostile: RunningDashboard, query: dict[str, str]
) -> None:
    """With a message, and no error in the log."""
    assert hostile.get("/conversations", **query).status == 400


def test_a_page_is_bounded(hostile: RunningDashboard) -> None:
    """One message of a megabyte is shown, and no page grows beyond some of them."""
    assert len(hostile.get("/events").text) < 200_000
    assert len(hostile.get("/conversation", id=HOSTILE[:60]).text) < 3_000_000
