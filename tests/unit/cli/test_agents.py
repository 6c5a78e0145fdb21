"""`tracker-sync agents`."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """One agent that works, one that has an error since November, one that only beats."""
    now = time.time_ns() // 1_000_000
    busy: dict[str, Any] = {"agent_id": "busy", "session_id": None, "timestamp_ms": now - 90_000}
    old: dict[str, Any] = {
        "agent_id": "old",
        "session_id": None,
        "timestamp_ms": NOON_MS - 90 * 86_400_000,
    }
    fill(
        config(),
        [
            an_event("agent.registered", data={"name": "Front\ndesk", "version": "2.1"}, **busy),
            an_event("agent.activity", data={"activity": "read mail"}, **busy),
            an_event(
                "agent.activity", data={"activity": "wrote mail"}, **{**busy, "session_id": "s"}
            ),
            an_event("agent.activity", data={"erased": True}, **busy),
            an_event("agent.status_changed", data={"status": "busy"}, **busy),
            an_event("agent.status_changed", data={"status": "error"}, **old),
            an_event("agent.heartbeat", agent_id="quiet", session_id=None, timestamp_ms=now),
        ],
    )
    return config().outbox_path


def test_what_people_see(path: Path) -> None:
    """Status and for how long, when last seen, and what it did last, on one line each."""
    shown = call("--outbox", path, "agents")
    assert shown.exit_code == 0
    heading, busy, old, quiet = (
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in shown.stdout.splitlines()
    )
    assert heading[:5] == ["agent", "status", "for", "last seen", "last activity"]
    assert busy == ["busy", "busy", "1 min 30 s", "1 min 30 s", "wrote mail", "Front\\ndesk", "2.1"]
    assert old[:2] == ["old", "error"]
    assert old[2] == old[3]
    assert quiet == ["quiet", "-", "-", "0 s"]


def test_json_and_csv_have_everything(path: Path) -> None:
    """Under the same names."""
    found = call_json("--outbox", path, "agents")
    assert [agent["agent_id"] for agent in found] == ["busy", "old", "quiet"]
    assert found[0]["status"] == "busy"
    assert (found[0]["activity"], found[0]["activity_session_id"]) == ("wrote mail", "s")
    assert found[2]["activity"] is None
    rows = csv.DictReader(io.StringIO(call("--outbox", path, "agents", "--csv").stdout))
    as_text = {name: "" if value is None else str(value) for name, value in found[1].items()}
    assert list(rows)[1] == as_text


@pytest.mark.parametrize(
    ("options", "agents"),
    [
        (["--agent", "old"], ["old"]),
        (["--status", "error"], ["old"]),
        (["--since", "1h"], ["busy", "quiet"]),
        (["--since", "1h", "--status", "idle"], []),
    ],
)
def test_agents_are_listed_by_id_status_and_time(
    path: Path, options: list[str], agents: list[str]
) -> None:
    """By id, status, and when last heard of."""
    found = call_json("--outbox", path, "agents", *options)
    assert [agent["agent_id"] for agent in found] == agents


def test_nothing_to_show(path: Path, tmp_path: Path) -> None:
    """Is said, and is no failure."""
    assert call("--outbox", path, "agents", "--agent", "x").stdout == "no such agents\n"
    none = tmp_path / "none.sqlite3"
    assert "nothing was logged" in call("--outbox", none, "agents").stdout
    assert call_json("--outbox", none, "agents") == []
    assert not none.exists()
