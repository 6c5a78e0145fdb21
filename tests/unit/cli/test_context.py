"""`tracker-sync`: which outbox is meant, and that asking leaves no traces."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json, fill
from tracker.config import APIConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

LOOKING = [
    ["status"],
    ["status", "--json"],
    ["list"],
    ["list", "--json"],
    ["show", "1"],
    ["verify"],
    ["path"],
    ["prune"],
    ["migrate"],
    ["dead", "list"],
    ["dead", "retry", "--all"],
    ["dead", "discard", "--all", "--yes"],
    ["erase", "user_7", "--yes"],
    ["doctor"],
    ["flush"],
]
FAILING = ("show", "erase", "verify", "migrate", "doctor")


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_nothing_is_made_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], named: bool
) -> None:
    """No outbox, no client id, no folder; exit code 0 unless something in it was asked for."""
    monkeypatch.setenv("SDK_API_KEY", "key")
    path = tmp_path / "new" / "outbox.sqlite3"
    result = call(*(["--outbox", path] if named else []), *command)
    unsettled = command == ["path"] and not named
    assert result.exit_code == (1 if command[0] in FAILING or unsettled else 0)
    assert list(tmp_path.iterdir()) == []
    if command == ["path"] and named:
        assert result.stdout == f"{path}\n"
    elif "--json" not in command and not unsettled:
        where = path if named else tmp_path / "data" / "agent-tracking-sdk"
        assert f"{where} yet: nothing was logged" in result.output


@pytest.mark.parametrize(
    "command",
    [*LOOKING, ["metrics"], ["conversations"], ["rebind", "--client-id", "c"]],
    ids=" ".join,
)
@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "deleted"])
def test_a_log_whose_file_is_gone_is_not_taken_for_no_outbox(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, command: list[str], emptied: bool
) -> None:
    """It may hold events: every command says so and leaves it alone, for the application."""
    monkeypatch.setenv("SDK_API_KEY", "key")
    made = config()
    fill(made)
    path, log = made.outbox_path, made.outbox_path.with_name(made.outbox_path.name + "-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE sync_state SET last_error = 'x'")
        words = log.read_bytes()
    path.write_bytes(b"") if emptied else path.unlink()
    log.write_bytes(words)
    result = call("--outbox", path, *command)
    if command == ["path"]:
        assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    else:
        assert result.exit_code == 1
        assert "is gone, but its write-ahead log is not, and may hold events" in result.output
    assert log.read_bytes() == words
    assert path.exists() == emptied


def test_without_an_outbox_json_is_still_valid(tmp_path: Path) -> None:
    """The same document as ever, with nothing in it."""
    path = tmp_path / "none.sqlite3"
    status = call_json("--outbox", path, "status")
    assert (status["outbox"], status["exists"], status["pending"]) == (str(path), False, 0)
    assert call_json("--outbox", path, "list") == []


def test_client_id_and_base_url_are_read_from_the_outbox(config: MakeConfig) -> None:
    """With only --outbox given, client id and base URL are the file's own."""
    made = config(client_id="kiosk-17", base_url="http://127.0.0.1:9")
    fill(made)
    status = call_json("--outbox", made.outbox_path, "status")
    assert (status["client_id"], status["base_url"]) == ("kiosk-17", "http://127.0.0.1:9")
    assert not (made.outbox_path.parent / "client-id").exists()


def test_the_environment_finds_the_applications_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default path is the one that APIConfig makes of the same variables."""
    monkeypatch.setenv("SDK_CLIENT_ID", "kiosk-17")
    monkeypatch.setenv("SDK_BASE_URL", "https://collector.example.com/")
    made = APIConfig(api_key="key")
    assert call("path").stdout == f"{made.outbox_path}\n"
    fill(made)
    monkeypatch.setenv("SDK_BASE_URL", "http://collector.example.com")  # nothing is sent: no harm
    other = call("status")
    assert f"--outbox {made.outbox_path}" in other.stdout


def test_a_client_id_that_was_made_is_used() -> None:
    """Without any setting at all, the outbox of the application without any setting is found."""
    made = APIConfig(api_key="key")
    fill(made)
    assert call("path").stdout == f"{made.outbox_path}\n"
    assert call_json("status")["client_id"] == made.client_id


def test_options_may_stand_after_the_command(config: MakeConfig) -> None:
    """And beat those before it."""
    made = config()
    fill(made)
    assert call_json("status", "--outbox", made.outbox_path)["pending"] == 3
    late = call_json("--outbox", "elsewhere", "status", "--outbox", made.outbox_path)
    assert late["pending"] == 3
    assert call_json("dead", "list", "--outbox", made.outbox_path) == []


def test_an_option_beats_the_environment(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As an argument does for APIConfig."""
    monkeypatch.setenv("SDK_OUTBOX_PATH", str(tmp_path / "other.sqlite3"))
    made = config()
    fill(made)
    assert call_json("--outbox", made.outbox_path, "status")["pending"] == 3
    assert call_json("status")["exists"] is False


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_what_is_no_outbox_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Another file: exit code 1, one line, and not a byte of it changed."""
    monkeypatch.setenv("SDK_API_KEY", "key")
    path = tmp_path / "letter"
    path.write_text("Dear Sir or Madam, " * 100)
    result = call("--outbox", path, *command)
    assert result.exit_code == 1
    assert "is not a SQLite file" in result.output
    assert isinstance(result.exception, SystemExit)
    assert path.read_text() == "Dear Sir or Madam, " * 100


def test_links_and_folders_are_refused(tmp_path: Path, config: MakeConfig) -> None:
    """A planted link leads nowhere."""
    fill(config())
    link = tmp_path / "link"
    link.symlink_to(config().outbox_path)
    for path, said in ((link, "symbolic link"), (tmp_path, "is a folder")):
        result = call("--outbox", path, "status")
        assert (result.exit_code, said in result.stderr) == (1, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said_plainly(tmp_path: Path) -> None:
    """Not that there was nothing in it."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o000)
    result = call("--outbox", folder / "outbox.sqlite3", "status")
    folder.chmod(0o700)
    assert result.exit_code == 1
    assert "Permission denied" in result.stderr
