"""`tracker-sync metrics`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill
from tracker.cli.days import sparkline
from tracker.cli.metrics import without_holes
from tracker.queries.figures import DAY_MS
from tracker.queries.metrics import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """Two conversations on the first of November, one that failed on the third."""
    answer = {"role": "agent", "content": "x", "response_time_ms": 100.0, "tokens_used": 1500}
    used = {"provider": "p", "model": "m", "total_tokens": 9, "cost_usd": 0.5}
    later = NOON_MS + 2 * DAY_MS
    fill(
        config(),
        [
            an_event(session_id="a", data=answer),
            an_event("conversation.ended", session_id="a", data={"quality_score": 4.0}),
            an_event("conversation.ended", session_id="b", data={"outcome": "resolved"}),
            an_event("llm.used", session_id="b", data=used),
            an_event("conversation.failed", session_id="c", agent_id="x", timestamp_ms=later),
        ],
    )
    return config().outbox_path


def test_what_people_see(path: Path) -> None:
    """The figures in all, and a line with a bar for each day, empty ones included."""
    shown = call("--outbox", path, "metrics")
    assert shown.exit_code == 0
    facts = {
        line.split("  ")[0]: line.split("  ", 1)[1].strip()
        for line in shown.stdout.split("\n\n")[0].splitlines()
    }
    assert facts["conversations"] == "3, of them open 0"
    assert facts["success"] == "66.7%: 2 ended"
    assert facts["failed sessions"] == "1"
    assert facts["tokens"] == "1,500 of messages, 9 of model calls"
    assert facts["cost"] == "$0.5000 for 1 model call"
    assert facts["response time"] == "mean 100 ms, p50 100 ms, p95 100 ms, p99 100 ms, of 1"
    assert facts["quality"] == "mean 4.00  ▁▁▁█▁  1: 0  2: 0  3: 0  4: 1  5: 0"
    assert facts["outcomes"] == "resolved 1"
    days = [line.split() for line in shown.stdout.split("\n\n")[1].splitlines()[1:]]
    assert [day[:3] for day in days] == [
        ["2026-11-01", "2", "100.0%"],
        ["2026-11-02", "0", "-"],
        ["2026-11-03", "1", "0.0%"],
    ]
    assert (days[0][-1], days[2][-1]) == ("█" * 20, "█" * 10)


def test_hours_in_each_form(path: Path) -> None:
    """Of UTC; only those with events, so that the two days between are no lines."""
    hours = ["2026-11-01T12:00", "2026-11-03T12:00"]
    told = call_json("--outbox", path, "metrics", "--step", "hour")
    assert [(hour["hour"], hour["conversations"]) for hour in told["hours"]] == [
        (hours[0], 2),
        (hours[1], 1),
    ]
    assert (told["days"], told["conversations"]) == ([], 3)
    rows = csv.DictReader(io.StringIO(call("--outbox", path, "metrics", "--step", "hour",
                                           "--csv").stdout))  # fmt: skip
    assert [row["hour"] for row in rows] == hours
    shown = call("--outbox", path, "metrics", "--step", "hour").stdout.split("\n\n")[1]
    heading, *lines = shown.splitlines()
    assert heading.startswith("hour (UTC)")
    assert [line.split()[:3] for line in lines] == [[hours[0], "2", "100.0%"],
                                                    [hours[1], "1", "0.0%"]]  # fmt: skip


def test_names_of_scores_are_shown_without_control_characters(config: MakeConfig) -> None:
    score = {"name": "clear\x1b[2J", "value": "all\x1b]0;\x07"}
    fill(config(), [an_event("score.recorded", session_id="a", data=score)])
    shown = call("--outbox", config().outbox_path, "metrics").stdout
    assert r"score clear\x1b[2J  all\x1b]0;\x07 1, of 1" in shown
    assert "\x1b" not in shown


def test_json_has_everything(path: Path) -> None:
    """The figures in all, and each day's under its date."""
    found = call_json("--outbox", path, "metrics")
    assert (found["conversations"], found["ended"], found["failed"]) == (3, 2, 1)
    assert found["response_time"]["p95_ms"] == 100.0
    assert [(day["day"], day["messages"]) for day in found["days"]] == [
        ("2026-11-01", 1),
        ("2026-11-03", 0),
    ]


def test_csv_has_a_line_for_each_day(path: Path) -> None:
    """With the same figures."""
    shown = call("--outbox", path, "metrics", "--csv").stdout
    first, second = csv.DictReader(io.StringIO(shown))
    assert (first["day"], first["tokens_used"], first["cost_usd"]) == ("2026-11-01", "1500", "0.5")
    assert (first["response_time_p95_ms"], first["quality_4"]) == ("100.0", "1")
    assert (second["day"], second["failed"], second["quality_mean"]) == ("2026-11-03", "1", "")


@pytest.mark.parametrize(
    ("options", "conversations"),
    [
        ([], 3),
        (["--agent", "x"], 1),
        (["--since", "2026-11-02"], 1),
        (["--until", "2026-11-02T00:00Z"], 2),
        (["--since", "1s"], 0),
    ],
)
def test_metrics_are_filtered_by_agent_and_time(
    path: Path, options: list[str], conversations: int
) -> None:
    """By agent and by time."""
    found = call_json("--outbox", path, "metrics", *options)
    assert found["conversations"] == conversations


@pytest.mark.parametrize(
    "options", [["--json", "--csv"], ["--since", "1h", "--until", "2h"], ["--since", "soon"]]
)
def test_wrong_use_exits_with_2(path: Path, options: list[str]) -> None:
    """Exit code 2."""
    assert call("--outbox", path, "metrics", *options).exit_code == 2


def test_without_an_outbox_all_is_nought(tmp_path: Path) -> None:
    """Nothing was logged yet: that is no failure, and the CSV has its headings."""
    none = tmp_path / "none.sqlite3"
    assert "nothing was logged" in call("--outbox", none, "metrics").stdout
    assert call_json("--outbox", none, "metrics")["days"] == []
    shown = call("--outbox", none, "metrics", "--csv")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("day,conversations,")
    assert not none.exists()


def test_a_sparkline_scales_to_its_highest_figure() -> None:
    """The highest is full, nought is a line, none is nothing."""
    assert sparkline([0, 1, 7]) == "▁▂█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


def test_a_clock_gone_wrong_fills_no_page() -> None:
    """Days far apart are shown without those between."""
    days = [Metrics(since_ms=0), Metrics(since_ms=NOON_MS)]
    assert without_holes(days) == days
    assert len(without_holes([Metrics(since_ms=0), Metrics(since_ms=365 * DAY_MS)])) == 366
