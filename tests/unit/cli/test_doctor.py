"""`tracker-sync doctor`: each check, well and not."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import time
from contextlib import closing
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import call, call_json, fill, settle
from tests.support.server import answer, error
from tracker.outbox.files.file_lock import FileLock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer

KEY = "the-secret-key"


@pytest.fixture
def path(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:
    """An outbox with three delivered events, for a server that answers pings."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("SDK_API_KEY", KEY)
    now = formatdate(time.time(), usegmt=True)
    scripted_server.script(otherwise=answer(200, {"protocol": 1}, {"Date": now}))
    made = config(base_url=scripted_server.url)
    fill(made)
    settle(made, 3)
    return made.outbox_path


def examine(path: Path) -> dict[str, dict[str, Any]]:
    """Return the checks by name; the exit code must fit, and the key must not show."""
    result = call("--outbox", path, "doctor")
    found = call_json("--outbox", path, "doctor")
    assert result.exit_code == (0 if found["ok"] else 1)
    assert found["ok"] is all(check["status"] != "problem" for check in found["checks"])
    assert KEY not in result.output + str(found)
    assert all(check["action"] in result.stdout for check in found["checks"])
    return {check["name"]: check for check in found["checks"]}


def test_all_is_well(path: Path) -> None:
    """Every line ok."""
    found = examine(path)
    assert {check["status"] for check in found.values()} == {"ok"}
    assert list(found) == [
        *["configuration", "API key", "folder", "files", "file lock", "free disk", "SQLite"],
        *["integrity", "chain key", "pending", "dead letters", "uploader", "clock", "server"],
        "key accepted",
    ]
    assert found["clock"]["message"].endswith("like the server's")
    assert sqlite3.sqlite_version in found["SQLite"]["message"]


def test_doctor_changes_no_file(path: Path) -> None:
    """Not one file more than before."""
    before = sorted(path.parent.iterdir())
    examine(path)
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("value", ["", "a b"])
def test_a_missing_key_is_a_problem_and_the_rest_is_checked(
    path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A problem of its own; everything on this machine is checked all the same."""
    monkeypatch.setenv("SDK_API_KEY", value)
    found = examine(path)
    assert found["API key"]["status"] == "problem"
    assert found["configuration"]["status"] == found["integrity"]["status"] == "ok"
    assert "server" not in found


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("SDK_BASE_URL", "http://example.com", "problem", "SDK_ALLOW_INSECURE_HTTP"),
        ("SDK_BASE_URL", "gopher://x", "problem", "scheme"),
        ("SDK_DISABLED", "1", "warning", "SDK_DISABLED disables it"),
        ("SDK_DISABLED", "perhaps", "problem", "SDK_DISABLED"),
    ],
)
def test_a_wrong_configuration_is_a_problem_in_its_own_words(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, status: str, said: str
) -> None:
    """What is wrong with it, in its own words."""
    monkeypatch.setenv(name, value)
    found = examine(path)["configuration"]
    assert found["status"] == status
    assert said in found["message"]


def test_an_outbox_of_another_owner_is_a_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application with this configuration would be refused: a problem."""
    monkeypatch.setenv("SDK_CLIENT_ID", "somebody-else")
    found = examine(path)["owner"]
    assert found["status"] == "problem"
    assert "tracker-sync rebind" in found["action"]


def test_what_others_may_read_is_a_warning(path: Path) -> None:
    """What others may read or enter is a warning, with the command against it."""
    path.chmod(0o644)
    path.parent.chmod(0o755)
    found = examine(path)
    assert (found["files"]["status"], found["folder"]["status"]) == ("warning", "warning")
    assert found["files"]["action"] == f"chmod 600 {path}"
    assert found["folder"]["action"] == f"chmod 700 {path.parent}"


def test_locks_that_do_not_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    found = examine(path)["file lock"]
    assert found["status"] == "problem"
    assert "local disk" in found["action"]


def test_less_than_100_megabytes_of_free_disk_are_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below 100 MB."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=99_000_000))
    found = examine(path)["free disk"]
    assert found["status"] == "warning"
    assert "prune" in found["action"]


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_a_sqlite_with_the_wal_reset_bug_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], affected: bool
) -> None:
    """Named where the version has it; no reason to worry."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    found = examine(path)["SQLite"]
    assert found["status"] == "ok"
    assert ("WAL-reset bug" in found["message"]) is affected


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o755, "list the names of files in it"),
        (0o711, "tell whether a name exists in it"),
        (0o770, "move or replace files in it"),
    ],
)
def test_what_a_mode_of_the_folder_allows(path: Path, mode: int, said: str) -> None:
    """The files in it are private all the same, so the events cannot be read."""
    path.parent.chmod(mode)
    try:
        found = examine(path)
    finally:
        path.parent.chmod(0o700)
    assert found["folder"]["message"].endswith(f"has mode {mode:04o}: other users can {said}")
    assert found["files"]["status"] == "ok"


def test_nobody_is_told_to_move_a_sound_outbox_away(path: Path) -> None:
    """What cannot be opened for another reason than damage, such as a newer version or no right."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    action = examine(path)["outbox"]["action"]
    assert "leave its files where they are" in action
    assert "a newer one" in action


def test_a_damaged_file(path: Path) -> None:
    """It is named, or it was salvaged on opening, and where the damaged one lies is named."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'gaps'")
    connection.commit()
    connection.close()
    found = examine(path)
    told = found.get("damaged files") or found["outbox"]
    assert told["status"] in ("warning", "problem")
    assert "damaged" in told["message"]
    assert told["action"]


def test_events_that_wait_without_an_uploader_are_a_warning(
    path: Path, config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Pending events without an uploader, and dead letters, are warnings."""
    made = config(base_url=scripted_server.url)
    fill(made, 4)
    settle(made, 1, dead=[4])
    found = examine(path)
    assert found["pending"]["message"].startswith("3, the oldest logged ")
    assert (found["uploader"]["status"], found["dead letters"]["status"]) == ("warning", "warning")
    lock = FileLock(path.with_name(path.name + ".sync-lock"))
    assert lock.try_acquire()
    assert examine(path)["uploader"]["message"].startswith("running")
    lock.close()


@pytest.mark.parametrize(("off", "said"), [(-9_030, "behind"), (9_030, "ahead of")])
def test_the_clock_is_held_against_the_servers(
    path: Path, scripted_server: ScriptedServer, off: int, said: str
) -> None:
    """By the Date of its answer."""
    then = formatdate(time.time() - off, usegmt=True)
    scripted_server.script(otherwise=answer(200, {"protocol": 1}, {"Date": then}))
    found = examine(path)["clock"]
    assert found["status"] == "warning"
    assert f"2 h 30 min {said} the server's" in found["message"]


def test_a_clock_without_a_battery(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1970 cannot be right."""
    monkeypatch.setattr(time, "time", lambda: 3600.0)
    assert examine(path)["clock"]["status"] == "problem"


def test_a_captive_portal_is_no_server(path: Path, scripted_server: ScriptedServer) -> None:
    """A friendly page instead of the protocol."""
    scripted_server.script(otherwise=answer(200, "<html>welcome to the hotel</html>"))
    found = examine(path)
    assert found["server"]["status"] == "problem"
    assert "does not speak this protocol" in found["server"]["message"]
    assert "key accepted" not in found


def test_a_refused_key(path: Path, scripted_server: ScriptedServer) -> None:
    """The server is there; the key is the problem, and whom it has to be for is said."""
    scripted_server.script(otherwise=error(401, "unauthorized"))
    found = examine(path)
    assert found["server"]["status"] == "ok"
    assert found["key accepted"]["status"] == "problem"
    assert "--client test-client" in found["key accepted"]["action"]


def test_before_the_first_event(
    tmp_path: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client id yet: whether the key is for it cannot be known, which is no problem yet."""
    monkeypatch.setenv("SDK_API_KEY", KEY)
    monkeypatch.setenv("SDK_BASE_URL", scripted_server.url)
    scripted_server.script(otherwise=error(403, "client_mismatch"))
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "no client id was made yet" in result.stdout
    assert list(tmp_path.iterdir()) == []
