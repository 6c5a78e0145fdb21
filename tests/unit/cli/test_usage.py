"""`tracker-sync usage`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill
from tracker.queries.figures import DAY_MS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.events import Event


def used(model: str, tokens: int, cost_usd: float | None = None, **ids: Any) -> Event:
    data = {"provider": "p", "model": model, "prompt_tokens": tokens, "completion_tokens": 500}
    data["total_tokens"] = tokens + 500
    return an_event(
        "llm.used", data=data | ({} if cost_usd is None else {"cost_usd": cost_usd}), **ids
    )


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """Two models on the first of November, one of them again two days later."""
    later = NOON_MS + 2 * DAY_MS
    fill(
        config(),
        [
            used("large", 1_500, 0.25, session_id="a"),
            used("large", 500, session_id="b", timestamp_ms=later),
            used("small", 500, 0.5, agent_id=None),
            an_event(),
        ],
    )
    return config().outbox_path


def test_what_people_see(path: Path) -> None:
    """Most tokens first, with a bar, and the sum of all; an unknown cost shows."""
    shown = call("--outbox", path, "usage")
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[1:4] == [
        ["large", "2", "2,000", "0", "0", "1,000", "3,000", "$0.2500+", "█" * 20],
        ["small", "1", "500", "0", "0", "500", "1,000", "$0.5000", "█" * 7],
        ["all", "3", "2,500", "0", "0", "1,500", "4,000", "$0.7500+"],
    ]
    assert "no cost is known for 1 call" in shown.stdout


def test_days_have_no_holes(path: Path) -> None:
    """A day without a call is shown; a cost that is not known is no 0."""
    lines = [
        line.split() for line in call("--outbox", path, "usage", "--by", "day").stdout.splitlines()
    ]
    assert [(line[0], line[1], line[7]) for line in lines[1:5]] == [
        ("2026-11-01", "2", "$0.7500"),
        ("2026-11-02", "0", "-"),
        ("2026-11-03", "1", "-"),
        ("all", "3", "$0.7500+"),
    ]
    assert (lines[1][-1], lines[3][-1]) == ("█" * 20, "█" * 7)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--by", "model"], ["large", "small"]),
        (["--by", "agent"], ["agent-1", None]),
        (["--by", "session"], ["a", "b", "session-1"]),
        (["--by", "day"], ["2026-11-01", "2026-11-03"]),
        (["--by", "day", "--since", "2026-11-02"], ["2026-11-03"]),
    ],
)
def test_json_names_what_it_is_summed_by(
    path: Path, options: list[str], keys: list[str | None]
) -> None:
    """And holds exact figures."""
    found = call_json("--outbox", path, "usage", *options)
    assert [one[options[1]] for one in found] == keys
    assert all(
        one["total_tokens"] == one["prompt_tokens"] + one["completion_tokens"] for one in found
    )


def test_csv_is_read_back(path: Path) -> None:
    """Under the names that JSON has."""
    found = call_json("--outbox", path, "usage", "--by", "day")
    rows = csv.DictReader(
        io.StringIO(call("--outbox", path, "usage", "--by", "day", "--csv").stdout)
    )
    assert list(rows) == [
        {name: "" if value is None else str(value) for name, value in one.items()} for one in found
    ]


def test_nothing_to_show(path: Path, tmp_path: Path) -> None:
    """Is said, and is no failure; the CSV has its headings."""
    assert call("--outbox", path, "usage", "--since", "1s").stdout == "no such model calls\n"
    none = tmp_path / "none.sqlite3"
    assert "nothing was logged" in call("--outbox", none, "usage").stdout
    assert call("--outbox", none, "usage", "--csv").stdout.startswith("model,calls,prompt_tokens,")
    assert call("--outbox", path, "usage", "--json", "--csv").exit_code == 2
    assert call("--outbox", path, "usage", "--by", "week").exit_code == 2
