"""`tracker-sync outboxes`, `flush --all` and `run --all`: several outboxes in one folder."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle
from tests.support.server import ScriptedServer, error
from tracker.cli.command import Place
from tracker.cli.run import EveryOutbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

KEY = "the-secret-key"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDK_API_KEY", KEY)
    return tmp_path / "folder"


@pytest.fixture
def servers() -> Iterator[list[ScriptedServer]]:
    with ScriptedServer() as one, ScriptedServer() as other:
        yield [one, other]


def add(config: MakeConfig, path: Path, client_id: str, url: str, events: int = 1) -> Path:
    fill(config(outbox_path=path, client_id=client_id, base_url=url), events)
    return path


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0042'")
        connection.commit()


def all_of(folder: Path, *command: object) -> Any:
    return call("--outbox", folder / "a.sqlite3", *command)


def test_each_outbox_is_listed_with_its_owner(config: MakeConfig, folder: Path) -> None:
    """What is pending in it, since when, and when it last delivered; no other file is one."""
    path = folder / "a.sqlite3"
    settings = config(outbox_path=path, client_id="kiosk-1", base_url="https://one.example")
    fill(settings, [an_event(timestamp_ms=NOON_MS + number) for number in range(3)])
    settle(settings, 2)
    add(config, folder / "b ü.sqlite3", "kiosk-2", "https://two.example", 5)
    (folder / "notes.sqlite3").write_text("no outbox")
    (folder / "empty.sqlite3").touch()
    with closing(sqlite3.connect(folder / "app.sqlite3")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    first, second = call_json("--outbox", path, "outboxes")
    assert (first["outbox"], first["client_id"]) == (str(path), "kiosk-1")
    assert (first["base_url"], first["pending"]) == ("https://one.example", 1)
    assert (first["oldest_pending_ms"], first["error"]) == (NOON_MS + 2, None)
    assert first["last_success_ms"] > NOON_MS
    assert first["size_bytes"] > 10_000
    assert (second["client_id"], second["pending"]) == ("kiosk-2", 5)
    assert second["last_success_ms"] is None
    rows = list(csv.DictReader(io.StringIO(all_of(folder, "outboxes", "--csv").stdout)))
    assert [(row["client_id"], row["pending"]) for row in rows] == [
        ("kiosk-1", "1"),
        ("kiosk-2", "5"),
    ]
    shown = all_of(folder, "outboxes")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert [line.split()[-1].rpartition("/")[2] for line in shown.stdout.splitlines()[1:]] == [
        "a.sqlite3",
        "ü.sqlite3",
    ]


def test_the_data_folder_is_looked_into_by_default(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the client id and the collector are now, and before there is any outbox."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("SDK_OUTBOX_PATH", "SDK_CLIENT_ID", "SDK_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert "no outbox in" in call("outboxes").stdout
    monkeypatch.setenv("SDK_API_KEY", KEY)
    flushed = call("flush", "--all")
    assert (flushed.exit_code, "no outbox in" in flushed.stdout) == (0, True)
    path = config(outbox_path=None, client_id="kiosk-1", base_url="http://127.0.0.1:9").outbox_path
    add(config, path, "kiosk-1", "http://127.0.0.1:9", 2)
    (found,) = call_json("outboxes")
    assert (found["outbox"], found["pending"]) == (str(path), 2)


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "gone"])
def test_one_that_is_gone_but_for_its_log_is_listed(
    config: MakeConfig, folder: Path, is_empty: bool
) -> None:
    """It may hold events that no receipt came for, so nobody is to think that there is nothing."""
    path = add(config, folder / "a.sqlite3", "kiosk-1", "https://one.example")
    log = path.with_name("a.sqlite3-wal")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sync_state SET flush_requests = 1")
        connection.commit()
        kept = log.read_bytes()
    log.write_bytes(kept)
    path.unlink()
    if is_empty:
        path.touch()
    (other,) = call_json("--outbox", folder / "b.sqlite3", "outboxes")
    assert other["outbox"] == str(path)
    assert "write-ahead log is not, and may hold events" in other["error"]
    sent = call("--outbox", folder / "b.sqlite3", "flush", "--all")
    assert sent.exit_code == 1
    assert "may hold events" in sent.output
    assert log.read_bytes() == kept


def test_one_that_cannot_be_read_is_named_beside_the_others(
    config: MakeConfig, folder: Path
) -> None:
    """On stderr, with why; exit code 1. A damaged header of ours is no other program's file."""
    add(config, folder / "a.sqlite3", "kiosk-1", "https://one.example")
    newer = add(config, folder / "newer.sqlite3", "kiosk-2", "https://one.example")
    of_a_newer_version(newer)
    damaged = add(config, folder / "damaged.sqlite3", "kiosk-3", "https://one.example")
    damaged.write_bytes(b"\xff" * 4096)
    shown = all_of(folder, "outboxes")
    assert shown.exit_code == 1
    assert "kiosk-1" in shown.stdout
    assert f"{newer}: " in shown.stderr
    assert "0042" in shown.stderr
    assert f"{damaged}: " in shown.stderr
    told = all_of(folder, "doctor").stdout  # there may be events in them that nobody sends
    assert all(f"it is not known what is pending in {path}" in told for path in (newer, damaged))
    found = {each["outbox"]: each for each in call_json("--outbox", newer, "outboxes")}
    assert [bool(found[str(path)]["error"]) for path in (folder / "a.sqlite3", newer, damaged)] == [
        False,
        True,
        True,
    ]


def test_all_are_flushed_each_to_its_own_collector(
    config: MakeConfig, folder: Path, servers: list[ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own client id, whatever the environment says; a backup sends nothing."""
    add(config, folder / "a.sqlite3", "kiosk-1", servers[0].url, 2)
    add(config, folder / "b.sqlite3", "kiosk-2", servers[1].url, 3)
    call("--outbox", folder / "b.sqlite3", "backup", folder / "copy.sqlite3")
    monkeypatch.setenv("SDK_CLIENT_ID", "another")
    monkeypatch.setenv("SDK_BASE_URL", "http://127.0.0.1:9")
    result = all_of(folder, "flush", "--all")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{folder / 'a.sqlite3'}\n2 events delivered, 0 pending, 0 dead\n"
        f"{folder / 'b.sqlite3'}\n3 events delivered, 0 pending, 0 dead\n"
    )
    for server, client_id, events in ((servers[0], "kiosk-1", 2), (servers[1], "kiosk-2", 3)):
        assert len(server.delivered) == events
        assert {request.headers["x-client-id"] for request in server.requests} == {client_id}
    assert [
        each["delivered"] for each in json.loads(all_of(folder, "flush", "--all", "--json").stdout)
    ] == [0, 0]


def test_one_that_cannot_be_flushed_stops_no_other(
    config: MakeConfig, folder: Path, servers: list[ScriptedServer]
) -> None:
    """Not of a newer version, not by plain http, not a server that refuses the key; exit code 1."""
    add(config, folder / "a.sqlite3", "kiosk-1", servers[0].url, 2)
    servers[1].script(otherwise=error(401, "unauthorized", f"{KEY} is no key"))
    add(config, folder / "b.sqlite3", "kiosk-2", servers[1].url)
    newer = add(config, folder / "c.sqlite3", "kiosk-3", servers[0].url)
    of_a_newer_version(newer)
    fill(config(outbox_path=folder / "d.sqlite3", base_url="http://two.example",
                allow_insecure_http=True), 1)  # fmt: skip
    result = all_of(folder, "flush", "--all", "--timeout", "1")
    assert result.exit_code == 1
    assert f"{folder / 'a.sqlite3'}\n2 events delivered, 0 pending" in result.stdout
    assert "0 events delivered, 1 pending" in result.stdout
    assert "the server refuses the API key" in result.stdout
    assert f"{newer}: " in result.stderr
    assert f"{folder / 'd.sqlite3'}: " in result.stderr
    assert "SDK_ALLOW_INSECURE_HTTP" in result.stderr
    assert KEY not in result.output
    found = json.loads(all_of(folder, "flush", "--all", "--timeout", "0", "--json").stdout)
    assert [(each["pending"], bool(each["error"])) for each in found] == [
        (0, False),
        (1, False),
        (None, True),
        (None, True),
    ]


@pytest.mark.parametrize("command", ["flush", "run"])
def test_without_a_key_nothing_is_tried(
    config: MakeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """That is one wrong configuration, exit code 2, and not one for each outbox."""
    add(config, folder / "a.sqlite3", "kiosk-1", "https://one.example")
    monkeypatch.delenv("SDK_API_KEY")
    result = all_of(folder, command, "--all")
    assert result.exit_code == 2
    assert result.stderr.count("no API key") == 1


def test_run_finds_outboxes_that_are_made_later(
    config: MakeConfig, folder: Path, servers: list[ScriptedServer]
) -> None:
    """At its next look; those that are open are left alone, and one that is bad is tried again."""
    add(config, folder / "a.sqlite3", "kiosk-1", servers[0].url)
    bad = add(config, folder / "b.sqlite3", "kiosk-2", servers[0].url)
    of_a_newer_version(bad)
    uploads = EveryOutbox(Place(outbox=str(folder / "a.sqlite3")))
    uploads.open()
    try:
        servers[0].wait_for(requests=1)
        assert (set(uploads.watched), set(uploads.refused)) == ({folder / "a.sqlite3"}, {bad})
        later = add(config, folder / "later.sqlite3", "kiosk-3", servers[1].url)
        uploads.open()
        servers[1].wait_for(requests=1)
        assert set(uploads.watched) == {folder / "a.sqlite3", later}
        assert set(uploads.refused) == {bad}
    finally:
        uploads.close()
    assert [len(server.delivered) for server in servers] == [1, 1]
