"""`tracker-sync config`, and commands that take their settings from a file."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle
from tracker import APIConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

KEY = "tk_3x4mple_of_a_secret"
SECRETS = f"""
api_key = "{KEY}"
chain_key = "{KEY}"
signing_key = "-----BEGIN PRIVATE KEY-----{KEY}"
proxies = {{https = "http://me:{KEY}@proxy:1", http = "me:a@{KEY}@proxy:1", ftp = "//{KEY}@", all = "http://p/?x={KEY}"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "tracker.toml"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_every_setting_is_shown_with_its_source(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Option, variable, file or default; in a table, and as JSON."""
    write(file, 'client_id = "kiosk-17"\nflush_interval = 3\nsecret_names = ["pin"]\n')
    monkeypatch.setenv("SDK_FLUSH_INTERVAL", "2")
    arguments = ["--config", file, "--outbox", tmp_path / "o.sqlite3", "config"]
    shown = call_json(*arguments)
    assert set(shown) == {item.name for item in dataclasses.fields(APIConfig)}
    assert shown["outbox_path"] == {
        "value": str(tmp_path / "o.sqlite3"), "source": "option", "name": "--outbox"
    }  # fmt: skip
    assert shown["flush_interval"] == {
        "value": 2.0, "source": "environment", "name": "SDK_FLUSH_INTERVAL"
    }  # fmt: skip
    assert shown["client_id"] == {"value": "kiosk-17", "source": "file", "name": str(file)}
    assert shown["read_timeout"] == {"value": 30.0, "source": "default", "name": ""}
    assert shown["redactors"]["value"] is None
    lines = {line.split()[0]: line.split()[1:] for line in call(*arguments).stdout.splitlines()}
    assert lines["flush_interval"] == ["2", "environment", "SDK_FLUSH_INTERVAL"]
    assert lines["secret_names"] == ["pin", "file", str(file)]
    assert lines["redactors"] == ["set", "in", "Python", "only", "default"]


def test_what_the_outbox_says_of_itself_is_shown_as_such(config: MakeConfig) -> None:
    """Client id and base URL of a file that is named."""
    made = config(client_id="kiosk-17", base_url="http://127.0.0.1:9")
    fill(made)
    shown = call_json("--outbox", made.outbox_path, "config")
    assert shown["client_id"] == {"value": "kiosk-17", "source": "outbox", "name": ""}
    assert shown["base_url"]["value"] == "http://127.0.0.1:9"


def test_no_key_and_no_password_is_shown(file: Path, tmp_path: Path) -> None:
    """Only that they are set, and by what."""
    write(file, f'{SECRETS}outbox_path = "o.sqlite3"\n')
    for arguments in (["config"], ["config", "--json"]):
        result = call("--config", file, *arguments)
        assert result.exit_code == 0, result.output
        assert KEY not in result.output
        assert "proxy:1" in result.stdout
    shown = call("--config", file, "config").stdout
    assert shown.count("set, not shown") == 3
    key = tmp_path / "key"
    key.write_text(KEY)
    write(file, 'api_key_file = "../key"\n')
    shown = call_json("--config", file, "config")
    assert shown["api_key"] == {"value": None, "source": "file", "name": str(key)}


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    """Without any setting: no key, and a client id that is yet to be made."""
    result = call("config")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []
    shown = call_json("config")
    assert shown["api_key"]["value"] is shown["client_id"]["value"] is None


def test_a_preset_says_where_its_days_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """`retention_days` is raised by it."""
    monkeypatch.setenv("SDK_RETENTION", "eu_ai_act")
    shown = call_json("config")["retention_days"]
    assert shown == {"value": 190.0, "source": "environment", "name": "SDK_RETENTION"}


@pytest.mark.parametrize("command", ["config", "status", "flush", "path", "doctor"])
def test_a_wrong_file_ends_every_command_with_one_line(file: Path, command: str) -> None:
    """It names the file and what is wrong; `doctor` says so as one of its checks."""
    write(file, "retention_day = 3\n")
    result = call("--config", file, command)
    assert result.exit_code == (1 if command == "doctor" else 2)
    assert f"{file}: there is no setting 'retention_day'; did you mean retention" in result.output
    assert isinstance(result.exception, SystemExit)


def test_commands_use_the_outbox_of_the_file(
    file: Path, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client id and base URL, which the file leaves out, are the outbox's own."""
    made = config(client_id="kiosk-17", base_url="http://127.0.0.1:9")
    fill(made)
    write(file, 'outbox_path = "../outbox.sqlite3"\n')
    status = call_json("--config", file, "status")
    assert (status["client_id"], status["pending"]) == ("kiosk-17", 3)
    assert call_json("status", "--config", file)["pending"] == 3
    monkeypatch.setenv("SDK_CONFIG_FILE", str(file))
    assert call_json("status")["pending"] == 3
    assert call("path").stdout == f"{made.outbox_path}\n"
    assert call("rebind", "--client-id", "kiosk-18").exit_code == 0
    assert call_json("status")["client_id"] == "kiosk-18"


def test_prune_keeps_to_the_rules_of_the_file(file: Path, config: MakeConfig) -> None:
    """As the application does: days by type, and for all others."""
    made = config(retention_days=36_500)
    now = time.time_ns() // 1_000_000
    assert now > NOON_MS
    fill(made, [an_event(), an_event("kept.longer", data={"n": 1}), an_event()])
    settle(made, 3)
    write(
        file,
        'outbox_path = "../outbox.sqlite3"\nretention_days = 0\n[retention]\nkept.longer = 9\n',
    )
    assert call_json("--config", file, "prune")["removed"] == 2
    assert [each["type"] for each in call_json("--config", file, "list")][:1] == ["kept.longer"]


def test_verify_takes_the_chain_key_of_the_file(file: Path, config: MakeConfig) -> None:
    """What it vouches for is then proven."""
    fill(config(chain_key=KEY))
    write(file, f'outbox_path = "../outbox.sqlite3"\nchain_key = "{KEY}"\n')
    assert call("--config", file, "verify").exit_code == 0
    write(file, 'outbox_path = "../outbox.sqlite3"\n')
    assert call("--config", file, "verify").exit_code == 3


def test_what_disables_the_tracker_is_named(file: Path) -> None:
    """By the file, if it is the file."""
    write(file, f'disabled = true\napi_key = "{KEY}"\n')
    assert f"disabled by {file}: nothing is uploaded" in call("--config", file, "flush").stderr


def test_doctor_warns_of_a_variable_that_is_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs' variables that begin so are none of its business."""
    for name in ("SDK_RETENTION_DAY", "SDK_APIKEY", "SDK_VERSION"):
        monkeypatch.setenv(name, "3")
    shown = call("doctor").stdout
    assert "did you mean SDK_API_KEY?" in shown
    assert "SDK_RETENTION_DAY is no setting's variable" in shown
    assert "did you mean SDK_RETENTION_DAYS?" in shown
    assert "SDK_VERSION" not in shown


def test_doctor_warns_of_a_key_that_others_can_read(file: Path) -> None:
    """A file with a key in it should be the application's alone."""
    write(file, f'api_key = "{KEY}"\nclient_id = "c"\n').chmod(0o604)
    result = call("--config", file, "doctor")
    assert f"other users can read {file}, which holds a key" in result.stdout
    file.chmod(0o600)
    assert "which holds a key" not in call("--config", file, "doctor").stdout
