"""`tracker-sync erase`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json
from tracker.events import make_event
from tracker.outbox.maintenance.scrub import Scrubber
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def path(config: MakeConfig) -> Path:
    outbox = Outbox(config())
    for user in ("u", "v", "u"):
        outbox.append(make_event("test.noted", {"text": "<said>"}, user_id=user))
    outbox.close()
    return config().outbox_path


def test_erase_says_what_it_did(path: Path) -> None:
    """In words and as JSON; the outbox is sound, and `show` explains the digest."""
    result = call("--outbox", path, "erase", "u", "--yes", "--reason", "asked")
    assert result.exit_code == 0
    assert result.stdout.startswith("2 events erased, named by ")
    assert result.stdout.endswith("\nno trace of the old data is left in the outbox's files\n")
    assert call("--outbox", path, "verify").exit_code == 0
    assert "that of the erased data" in call("--outbox", path, "show", "1").stdout
    erasure = call_json("--outbox", path, "show", "4")
    assert erasure["data"]["reason"] == "asked"
    found = call_json("--outbox", path, "erase", "v", "--yes")
    assert (found["erased"], found["scrubbed"]) == (1, True)
    assert found["event_ids"] == [call_json("--outbox", path, "show", "5")["event_id"]]


def test_without_a_terminal_it_wants_yes(path: Path) -> None:
    """Nothing is erased by accident."""
    result = call("--outbox", path, "erase", "u")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert call_json("--outbox", path, "show", "1")["data"] == {"text": "<said>"}


@pytest.mark.parametrize("arguments", [[""], ["x" * 257], []])
def test_an_impossible_user(path: Path, arguments: list[str]) -> None:
    """Wrong use, told in a line."""
    assert call("--outbox", path, "erase", "--yes", *arguments).exit_code == 2


def test_traces_that_are_left_make_it_fail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are erased all the same; exit code 1 says that the files are not clean."""
    monkeypatch.setattr(Scrubber, "patience_seconds", 0.0)
    with closing(sqlite3.connect(path)) as reader:  # of an old state
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        result = call("--outbox", path, "erase", "u", "--yes")
    assert result.exit_code == 1
    assert "tracker-sync prune" in result.stderr
    assert call_json("--outbox", path, "show", "1")["data"] == {"erased": True}


def test_a_user_of_whom_nothing_is_stored(path: Path) -> None:
    """Said so, with exit code 1, and no event tells of an erasure that was none."""
    result = call("--outbox", path, "erase", "nobody", "--yes")
    assert result.exit_code == 1
    assert "nothing is stored about the user nobody" in result.stderr
    assert call_json("--outbox", path, "list", "--type", "compliance.erased") == []
