"""`tracker-sync verify`, `prune`, `migrate` and `rebind`."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import an_event, call, call_json, fill, settle
from tests.support.next_version import NextVersion
from tracker.client import connect
from tracker.errors import ConfigurationError
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig


def edit(path: Path, *statements: str) -> None:
    """Change the outbox behind the tracker's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_verify_a_sound_outbox(config: MakeConfig) -> None:
    """Says what was checked; removed events are no gap."""
    fill(config(), 5)
    settle(config(), 2)
    assert call("--outbox", config().outbox_path, "prune", "--days", "0").exit_code == 0
    result = call("--outbox", config().outbox_path, "verify")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("checked 4 events up to seq 6: digests, chain, gaps")
    assert "2 events removed" in result.stdout
    assert result.stdout.endswith("\nsound\n")
    found = call_json("--outbox", config().outbox_path, "verify")
    assert found == {
        "outbox": str(config().outbox_path),
        "ok": True,
        "events": 4,
        "first_seq": 3,
        "last_seq": 6,
        "removed": 2,
        "collector_events": None,
        "proven": True,
        "problems": [],
        "unproven": [],
    }


def damaged(config: APIConfig) -> Path:
    """Return the path of an outbox in whose file some pages were overwritten."""
    path = config.outbox_path
    fill(config, 90)
    edit(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(-20 * 1024, 2)
        file.write(b"x" * 10 * 1024)
    return path


@pytest.mark.parametrize("command", ["verify", "export", "backup copy.sqlite3"])
def test_what_only_reads_leaves_a_damaged_outbox_and_says_what_to_do(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """An application salvages it, and so does a command."""
    path = damaged(config())
    monkeypatch.chdir(tmp_path)
    result = call("--outbox", path, *command.split())
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert "malformed" in line
    assert "An application that uses it, or `tracker-sync flush`, salvages" in line
    assert not list(path.parent.glob("*.damaged-*Z"))


def test_replacing_a_damaged_outbox_is_told(config: MakeConfig) -> None:
    """One line on stderr: what was carried over, what was lost, and which files were kept."""
    path = damaged(config())
    pruned = call("--outbox", path, "prune")
    assert pruned.exit_code == 0, pruned.output
    (line,) = pruned.stderr.splitlines()
    assert line.startswith(f"Warning: the outbox {path} is damaged (")
    assert "A new one was made from what could be read: " in line
    (kept,) = path.parent.glob("*.damaged-*Z")
    assert line.endswith(f"The damaged files were kept: {kept}")
    again = call("--outbox", path, "prune")
    assert (again.exit_code, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("statement", "kind", "seq", "text"),
    [
        ("UPDATE events SET data = '{}' WHERE seq = 2", "digest", 2, "seq 2: digest: event "),
        (
            "UPDATE events SET chain = digest WHERE seq = 3",
            "chain",
            3,
            "seq 3: chain: events 3 to 4 do",
        ),
        ("DELETE FROM events WHERE seq = 2", "gap", 2, "seq 2: gap: event 2 is missing"),
        ("INSERT INTO account VALUES ('dead', 1, NULL)", "account", None, "outbox: account: "),
    ],
)
def test_verify_finds_what_does_not_hold(
    config: MakeConfig, statement: str, kind: str, seq: int | None, text: str
) -> None:
    """Names its seq, says what to do, and exits with 1."""
    fill(config(), 4)
    edit(config().outbox_path, statement)
    result = call("--outbox", config().outbox_path, "verify")
    assert result.exit_code == 1
    assert text in result.stdout
    assert f"\n  {kind}: " in result.stdout.split("What to do:")[1]
    found = call_json("--outbox", config().outbox_path, "verify")
    assert found["ok"] is False
    assert (found["problems"][0]["kind"], found["problems"][0]["seq"]) == (kind, seq)


@pytest.mark.parametrize("command", ["status", "list", "show 1", "verify", "path", "doctor"])
def test_an_outbox_robbed_of_its_rows(config: MakeConfig, command: str) -> None:
    """One line and exit code 1, no traceback, even where nobody could expect it."""
    fill(config(), 4)
    edit(config().outbox_path, "DELETE FROM identity")
    result = call("--outbox", config().outbox_path, *command.split())
    told_in_report = command == "doctor"
    assert (result.exit_code, result.stderr.count("\n")) == (1, 0 if told_in_report else 1)
    assert "is damaged, and its owner cannot be read" in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET chain = 'é' WHERE seq = 2",
        "UPDATE events SET chain = x'ff' WHERE seq = 2",
        "UPDATE events SET digest = 'é' WHERE seq = 2",
        "UPDATE events SET data = x'ff' WHERE seq = 2",
        "UPDATE events SET data = x'ff', timestamp_ms = 'soon' WHERE seq = 2",
        "DELETE FROM events WHERE seq = 2; INSERT INTO gaps VALUES (2, 1, 'x', NULL)",
        "INSERT INTO gaps VALUES (3, 9, 'x', NULL)",
        "UPDATE gaps SET chain = x'ff'",
    ],
)
@pytest.mark.timeout(10)
def test_verify_survives_whatever_was_done(config: MakeConfig, statement: str) -> None:
    """It says that it is not sound, and does not fail or hang over it."""
    fill(config(), 5)
    settle(config(), 1)
    call("--outbox", config().outbox_path, "prune", "--days", "0")
    edit(config().outbox_path, *statement.split("; "))
    result = call("--outbox", config().outbox_path, "verify")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "not sound" in result.stdout
    assert call("--outbox", config().outbox_path, "list", "--limit", "0").exit_code == 0


def test_verify_shows_no_endless_list(config: MakeConfig) -> None:
    """A hundred problems in text, all of them in JSON."""
    fill(config(), 120)
    edit(config().outbox_path, "UPDATE events SET data = '{}'")
    lines = call("--outbox", config().outbox_path, "verify").stdout.splitlines()
    assert lines[101] == "… and 20 more: tracker-sync verify --json"
    assert len(call_json("--outbox", config().outbox_path, "verify")["problems"]) == 120


def test_prune_keeps_six_months_where_the_variable_says_so(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command cannot know what an application has in Python, but it knows the environment."""
    fill(config(), 3)
    settle(config(), 3)
    path = config().outbox_path
    edit(path, "UPDATE events SET delivered_at_ms = delivered_at_ms - 189 * 86400000")
    monkeypatch.setenv("SDK_RETENTION", "eu_ai_act")
    assert call_json("--outbox", path, "prune")["removed"] == 0
    monkeypatch.setenv("SDK_RETENTION", "six months")
    refused = call("--outbox", path, "prune")
    assert refused.exit_code == 2
    assert "SDK_RETENTION) is 'six months'; give 'eu_ai_act'" in refused.stderr
    monkeypatch.delenv("SDK_RETENTION")
    assert call_json("--outbox", path, "prune")["removed"] == 3


def test_prune_removes_what_is_delivered_and_old(config: MakeConfig) -> None:
    """By default after seven days; pending and dead ones never; the file shrinks; it is logged."""
    fill(config(), [an_event(data={"content": "x" * 10_000}) for _ in range(100)])
    settle(config(), 98, dead=[98])
    path = config().outbox_path
    assert call("--outbox", path, "prune").stdout == "0 events removed, 0 B freed\n"
    edit(path, "UPDATE events SET delivered_at_ms = delivered_at_ms - 8 * 86400000 WHERE seq < 51")
    found = call_json("--outbox", path, "prune")
    assert found["removed"] == 50
    assert found["bytes_given_back"] > 400_000
    result = call("--outbox", path, "prune", "--days", "0")
    assert result.stdout.startswith("47 events removed, ")
    left = call_json("--outbox", path, "list")
    assert [e["seq"] for e in left] == [98, 99, 100, 101, 102]
    assert [e["data"] for e in left[3:]] == [
        {"removed": {"message.logged": 50}, "days": {"*": 7, "compliance.*": 3_650}},
        {"removed": {"message.logged": 47}, "days": {"*": 0, "compliance.*": 3_650}},
    ]
    assert call("--outbox", path, "verify").exit_code == 0


def test_migrate_says_that_there_is_nothing_to_do(config: MakeConfig) -> None:
    """And which revision it is."""
    fill(config())
    result = call("--outbox", config().outbox_path, "migrate")
    assert result.exit_code == 0, result.output
    assert f"is up to date (revision {tables.HEAD})" in result.stdout


def test_migrate_says_from_where_to_where(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a made-up newer schema."""
    fill(config())
    before = tables.HEAD
    NextVersion(tmp_path, monkeypatch).install()
    result = call("--outbox", config().outbox_path, "migrate")
    assert result.exit_code == 0, result.output
    assert f"was migrated from revision {before} to 9999" in result.stdout
    assert call_json("--outbox", config().outbox_path, "status")["pending"] == 3


@pytest.mark.parametrize("command", ["migrate", "status", "list", "flush", "doctor"])
def test_a_newer_outbox_is_left_alone(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """One line that says what to install."""
    monkeypatch.setenv("SDK_API_KEY", "key")
    fill(config())
    edit(config().outbox_path, "UPDATE alembic_version SET version_num = '9999'")
    result = call("--outbox", config().outbox_path, command)
    assert result.exit_code == 1
    assert "pip install --upgrade agent-tracking-sdk" in result.output


def test_rebind_makes_the_outbox_anothers(config: MakeConfig) -> None:
    """The application that was refused can use it, with all that is pending."""
    fill(config())
    other = config(client_id="kiosk-18", base_url="http://127.0.0.1:9/x")
    with pytest.raises(ConfigurationError, match="tracker-sync rebind"):
        connect(other, object())
    options = ["--client-id", "kiosk-18", "--base-url", "http://127.0.0.1:9/x/"]
    result = call("--outbox", config().outbox_path, "rebind", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "was: client test-client, http://127.0.0.1:8080\n"
        "now: client kiosk-18, http://127.0.0.1:9/x\n"
    )
    assert len(fill(other)) == 3
    assert call_json("--outbox", config().outbox_path, "status")["pending"] == 6


def test_rebind_keeps_what_is_not_given(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment as from options."""
    fill(config())
    monkeypatch.setenv("SDK_BASE_URL", "https://collector.example.com")
    assert call("--outbox", config().outbox_path, "rebind").exit_code == 0
    status = call_json("--outbox", config().outbox_path, "status")
    assert status["client_id"] == "test-client"
    assert status["base_url"] == "https://collector.example.com"


@pytest.mark.parametrize(
    "options", [[], ["--base-url", "http://example.com"], ["--base-url", "x"], ["--client-id", ""]]
)
def test_rebind_refuses_what_could_not_upload(config: MakeConfig, options: list[str]) -> None:
    """Exit code 2, and everything as it was."""
    fill(config())
    assert call("--outbox", config().outbox_path, "rebind", *options).exit_code == 2
    status = call_json("--outbox", config().outbox_path, "status")
    assert (status["client_id"], status["base_url"]) == ("test-client", "http://127.0.0.1:8080")
