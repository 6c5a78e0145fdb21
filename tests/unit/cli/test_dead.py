"""`tracker-sync dead`: list, retry, discard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json, fill, settle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """Six events: 1, 2, 5 delivered, 3 and 4 dead, 6 pending."""
    fill(config(), 6)
    settle(config(), 5, dead=[3, 4])
    return config().outbox_path


def seqs(path: Path, *options: str) -> list[int]:
    return [event["seq"] for event in call_json("--outbox", path, "list", *options)]


def test_dead_letters_are_listed_with_what_the_server_said(path: Path) -> None:
    """What the server said about each."""
    letters = call_json("--outbox", path, "dead", "list")
    assert [(letter["seq"], letter["dead_code"]) for letter in letters] == [
        (3, "invalid_event"),
        (4, "invalid_event"),
    ]
    lines = call("--outbox", path, "dead", "list").stdout.splitlines()
    assert len(lines) == 3
    assert "event 3 is odd" in lines[1]
    assert letters[0]["event_id"] in lines[1]
    assert call_json("--outbox", path, "dead", "list", "--limit", "1") == letters[1:]


def test_retry_one_by_its_id_and_all(path: Path) -> None:
    """They are pending again, where they stood."""
    letter = call_json("--outbox", path, "dead", "list")[0]
    result = call("--outbox", path, "dead", "retry", letter["event_id"])
    assert (result.exit_code, result.stdout) == (0, "1 event pending again\n")
    assert (seqs(path, "--pending"), seqs(path, "--dead")) == ([3, 6], [4])
    assert call_json("--outbox", path, "dead", "retry", "--all") == {
        "pending_again": 1,
        "not_found": [],
    }
    assert seqs(path, "--pending") == [3, 4, 6]
    assert call("--outbox", path, "verify").exit_code == 0


def test_a_name_given_twice_counts_once(path: Path) -> None:
    """By seq and by id it is the same event, and the account stays right."""
    letter = call_json("--outbox", path, "dead", "list")[0]
    names = ["3", letter["event_id"], "3"]
    assert call("--outbox", path, "dead", "retry", *names).stdout == "1 event pending again\n"
    assert call("--outbox", path, "dead", "discard", "4", "4", "--yes").exit_code == 0
    status = call_json("--outbox", path, "status")
    assert [status[n] for n in ("pending", "dead", "discarded")] == [3, 0, {"operator": 1}]
    assert call("--outbox", path, "verify").exit_code == 0


def test_a_discarded_dead_letter_is_counted_and_the_outbox_verifies(path: Path) -> None:
    """Gone, counted as the operator's, and the outbox verifies."""
    result = call("--outbox", path, "dead", "discard", "--all", "--yes")
    assert (result.exit_code, result.stdout) == (0, "2 events discarded\n")
    status = call_json("--outbox", path, "status")
    assert (status["dead"], status["discarded"], status["pending"]) == (0, {"operator": 2}, 2)
    assert seqs(path) == [1, 2, 5, 6, 7]
    said = call_json("--outbox", path, "show", "7")
    assert (said["type"], said["data"]["reason"]) == ("events.discarded", "operator")
    assert said["data"]["ranges"] == [[3, 4]]
    assert call("--outbox", path, "verify").exit_code == 0
    assert call("--outbox", path, "dead", "list").stdout == "no dead letters\n"


def test_discard_without_a_terminal_needs_yes(path: Path) -> None:
    """Exit code 2, and nothing is discarded."""
    result = call("--outbox", path, "dead", "discard", "--all")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert seqs(path, "--dead") == [3, 4]


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_what_is_no_dead_letter_is_named(path: Path, command: str) -> None:
    """A pending event, a delivered one, none at all: untouched; the others are done; exit 1."""
    options = ["--yes"] if command == "discard" else []
    result = call("--outbox", path, "dead", command, "6", "1", "3", "no-such-id", *options)
    assert result.exit_code == 1
    assert result.stdout.startswith("1 event ")
    assert [line.split()[-1] for line in result.stderr.splitlines()] == ["6", "1", "no-such-id"]
    assert seqs(path, "--dead") == [4]
    assert seqs(path, "--delivered") == [1, 2, 5]


def test_only_unknown_names_change_nothing(path: Path) -> None:
    """Above all not everything."""
    assert call("--outbox", path, "dead", "discard", "nobody", "--yes").exit_code == 1
    assert seqs(path, "--dead") == [3, 4]
