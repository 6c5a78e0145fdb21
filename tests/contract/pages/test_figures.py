"""The figures on the pages are those that the commands print at the same moment."""

from __future__ import annotations

import re
import threading
from html import unescape
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of, talk
from tests.support.cli import call_json
from tests.support.dashboard import running
from tests.support.settings import quick
from tracker import Tracker
from tracker.pages.words import money, percent, short, took
from tracker.sync.destination import Delivery, Outcome, Rejection, Upload
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.dashboard import RunningDashboard
    from tracker.config import APIConfig


class Away:
    """A server that is not there."""

    def send(self, _upload: Upload) -> Delivery:
        return Delivery(Outcome.UNAVAILABLE)

    def close(self) -> None: ...


def text_of(html: str) -> str:
    """Return what a page says, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def figures_of(html: str) -> dict[str, int]:
    """Return the account on a page, by name."""
    found = re.findall(
        r"<dt>(?:<a[^>]*>)?(\w+)(?:</a>)?</dt>\s*<dd>(?:<span[^>]*>[^<]*</span>)?([\d,]+)</dd>",
        html,
    )
    return {name: int(figure.replace(",", "")) for name, figure in found}


def sentence_of(html: str) -> str:
    found = re.search(r"<h1>.*?</h1>", html, re.DOTALL)
    assert found is not None
    return text_of(found[0])


@pytest.fixture
def mixed(tmp_path: Path) -> APIConfig:
    """An outbox with events of every state but skipped."""
    config = quick(tmp_path, before_record=lambda e: None if e["type"] == "noise.made" else e)
    with Tracker(config, destination=RecordingDestination) as tracker:
        talk(tracker)
        tracker.track("noise.made", {})
        tracker.flush(10)
    with Tracker(config, destination=Away) as tracker:
        talk(tracker, "order-8")
    return config


@pytest.mark.parametrize("page", ["/", "/delivery"])
def test_the_account_equals_that_of_status(mixed: APIConfig, page: str) -> None:
    """And it adds up, on the page too."""
    path = path_of(mixed)
    status = call_json("--outbox", path, "status")
    with running(path) as board:
        shown = figures_of(board.get(page).text)
    assert shown["pending"] > 0
    assert shown["discarded"] == 1
    for name in ("accepted", "delivered", "pending", "dead"):
        assert shown[name] == status[name]
    assert shown["discarded"] == sum(status["discarded"].values())
    assert shown["accepted"] == sum(shown[name] for name in ("delivered", "pending", "dead",
                                                             "discarded"))  # fmt: skip


def test_metrics_equal_those_of_the_command(talked: APIConfig, board: RunningDashboard) -> None:
    """Of the same period."""
    found = call_json("--outbox", path_of(talked), "metrics", "--since", "7d")
    said = text_of(board.settled("/").text)
    for name, value in (
        ("Conversations", f"{found['conversations']:,}"),
        ("Success rate", percent(found["success_rate"])),
        ("Response time, p95", took(found["response_time"]["p95_ms"])),
        ("Model cost", money(found["cost_usd"])),
    ):
        assert f"{name} {value}" in said
    assert f"{short(found['llm_tokens'])} tokens" in said


@pytest.mark.parametrize(("period", "step"), [("7d", "day"), ("24h", "hour")])
def test_charts_and_their_figures_say_that_they_are_of_utc(
    board: RunningDashboard, period: str, step: str
) -> None:
    """Their days and hours are not those of the reader's clock; outcomes have neither."""
    page = board.settled(f"/?period={period}").text
    charts = [
        text_of(each) for each in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    ]
    assert [each for each in charts if " a day (UTC)" in each or " an hour (UTC)" in each] == [
        each for each in charts if not each.startswith("Outcomes")
    ]
    assert f'<th scope="col">{step.capitalize()} (UTC)</th>' in page


def test_every_state_of_the_account_has_its_first_line(tmp_path: Path) -> None:
    """From nothing, over what waits, to what is delivered and refused."""
    config = quick(tmp_path)
    path = path_of(config)
    with running(path) as board:

        def line() -> str:
            return sentence_of(board.get("/").text)

        assert line() == "Nothing was logged yet."
        with Tracker(config, destination=Away) as tracker:
            tracker.track("cart.abandoned", {"items": 3})
        assert line() == "1 event waits to be sent."
        with Tracker(config, destination=RecordingDestination) as tracker:
            tracker.flush(10)
        assert line() == "Everything is delivered."
        refuse_one(config)
        assert line() == "1 event was refused for good."


def test_what_is_being_sent_is_on_the_way(tmp_path: Path) -> None:
    """Only while something sends it: not while the server is away, or nothing uploads."""
    config = quick(tmp_path)
    asked, answers = threading.Event(), threading.Event()

    class Slow(RecordingDestination):
        def send(self, upload: Upload) -> Delivery:
            asked.set()
            assert answers.wait(10)
            return super().send(upload)

    with Tracker(config, destination=Slow) as tracker:
        tracker.track("cart.abandoned", {"items": 3})
        assert asked.wait(10)
        with running(path_of(config)) as board:
            said = sentence_of(board.get("/").text)
        answers.set()
    assert said == "Delivering. 1 on the way."


def refuse_one(config: APIConfig) -> None:
    """Log an event that the server refuses for good."""
    with Tracker(config, destination=RefusingDestination) as tracker:
        tracker.track("too.large", {}, session_id="order-9")
        tracker.flush(10)


class RefusingDestination:
    """A server that refuses each event for good."""

    def send(self, upload: Upload) -> Delivery:
        refused = [Rejection(each, "event_too_large", "It has 2 MB.") for each in upload.event_ids]
        return Delivery(Outcome.DELIVERED, rejected=tuple(refused))

    def close(self) -> None: ...


def test_a_dead_letter_is_shown_with_the_servers_words_and_what_helps(tmp_path: Path) -> None:
    """On the page on delivery, and in its conversation."""
    config = quick(tmp_path)
    refuse_one(config)
    path = path_of(config)
    with running(path) as board:
        said = text_of(board.get("/delivery").text)
    assert "event_too_large : It has 2 MB." in said
    assert f"tracker-sync --outbox {path} dead retry " in said
    assert f"tracker-sync --outbox {path} dead discard " in said
