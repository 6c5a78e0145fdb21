"""`tracker-sync export`."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle, start
from tests.support.conversations import ROOT
from tests.support.settings import quick
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

ODD = {"role": "user", "content": 'two\nlines, "quoted"\u0085 =1+1 🙂'}
NOON = datetime.fromtimestamp(NOON_MS / 1000, timezone.utc)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four events: 1 delivered, 2 dead, 3 and 4 pending."""
    settings = quick(tmp_path_factory.mktemp("export"))
    fill(
        settings,
        [
            an_event("conversation.started", data={"run_id": "r"}),
            an_event(data=ODD),
            an_event(session_id=None, agent_id=None),
            an_event("tool.called", session_id="b", timestamp_ms=NOON_MS + 1),
        ],
    )
    settle(settings, 2, dead=[2])
    return settings.outbox_path


@pytest.fixture
def listed(path: Path) -> list[dict[str, Any]]:
    """The same events as `list --json` has them."""
    found: list[dict[str, Any]] = call_json("--outbox", path, "list", "--limit", "0")
    return found


def test_json_lines_are_what_list_prints(
    path: Path, listed: list[dict[str, Any]], tmp_path: Path
) -> None:
    """To stdout by default, or to a file: a line for each event, as `list --json` has it."""
    shown = call("--outbox", path, "export")
    assert shown.exit_code == 0
    assert [json.loads(line) for line in shown.stdout.splitlines()] == listed
    file = tmp_path / "events.jsonl"
    said = call("--outbox", path, "export", "--output", file)
    assert said.stdout == f"4 events written to {file}\n"
    assert file.read_text() == shown.stdout


def test_csv_keeps_data_as_json_text(
    path: Path, listed: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The file's name says so; data is JSON text, and nothing of it is changed."""
    file = tmp_path / "events.CSV"
    assert call("--outbox", path, "export", "-o", file).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    assert [json.loads(row.pop("data")) for row in rows] == [each.pop("data") for each in listed]
    assert rows == [
        {name: "" if value is None else str(value) for name, value in each.items()}
        for each in listed
    ]


def test_parquet_columns_have_types(
    path: Path, listed: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Columns have types: numbers, text, and timestamps in UTC."""
    file = tmp_path / "events.parquet"
    assert call("--outbox", path, "export", "-o", file).exit_code == 0
    table = parquet.read_table(file)
    types = {field.name: str(field.type) for field in table.schema}
    assert types.pop("seq") == "int64"
    times = [types.pop(name) for name in ("timestamp", "delivered_at", "dead_at")]
    assert set(times) == {"timestamp[ms, tz=UTC]"}
    assert set(types.values()) == {"string"}
    rows = table.to_pylist()
    assert [json.loads(row["data"]) for row in rows] == [each["data"] for each in listed]
    for name in (*types.keys() - {"data"}, "seq"):
        assert [row[name] for row in rows] == [each[name] for each in listed]
    assert [row["timestamp"] for row in rows] == [NOON, NOON, NOON, NOON.replace(microsecond=1000)]
    assert rows[0]["delivered_at"].timestamp() * 1000 == listed[0]["delivered_at_ms"]
    assert rows[3]["delivered_at"] is None


def test_parquet_goes_through_a_pipe(path: Path, tmp_path: Path) -> None:
    """It needs no seeking."""
    file = tmp_path / "piped"
    with file.open("wb") as stdout:
        command = start("--outbox", path, "export", "--format", "parquet", stdout=stdout)
        _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (0, "")
    assert parquet.read_table(file).num_rows == 4


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        (["--pending"], [3, 4]),
        (["--state", "dead"], [2]),
        (["--session", "b"], [4]),
        (["--agent", "agent-1", "--type", "tool.called"], [4]),
        (["--since", "1s"], []),
        (["--limit", "1"], [4]),
    ],
)
def test_the_filters_of_list(
    path: Path, tmp_path: Path, options: list[str], seqs: list[int]
) -> None:
    """In every format; where nothing is left, the file is a whole one without a row."""
    shown = call("--outbox", path, "export", *options)
    assert [json.loads(line)["seq"] for line in shown.stdout.splitlines()] == seqs
    rows = call("--outbox", path, "export", "--format", "csv", *options).stdout
    assert [int(row["seq"]) for row in csv.DictReader(io.StringIO(rows, newline=""))] == seqs
    file = tmp_path / "some.parquet"
    call("--outbox", path, "export", "-o", file, *options)
    assert parquet.read_table(file)["seq"].to_pylist() == seqs


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
def test_a_dash_is_stdout(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    """By convention; a file of that name has to be called `./-`."""
    monkeypatch.chdir(tmp_path)
    usual = call("--outbox", path, "export", "--format", format_)
    dashed = call("--outbox", path, "export", "--format", format_, "--output", "-")
    assert (dashed.exit_code, dashed.stdout) == (0, usual.stdout)
    assert not (tmp_path / "-").exists()
    assert call("--outbox", path, "export", "-o", "./-").exit_code == 0
    assert (tmp_path / "-").exists()


def test_the_file_is_private_and_is_not_replaced(path: Path, tmp_path: Path) -> None:
    """Unless that is asked for; whatever the umask."""
    file = tmp_path / "events.jsonl"
    before = os.umask(0)
    try:
        assert call("--outbox", path, "export", "-o", file).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("precious")
    again = call("--outbox", path, "export", "-o", file)
    assert again.exit_code == 1
    assert again.stderr == f"Error: {file} exists; give another name, or --force to replace it\n"
    assert file.read_text() == "precious"
    assert call("--outbox", path, "export", "-o", file, "--force").exit_code == 0
    assert len(file.read_text().splitlines()) == 4
    assert [each.name for each in tmp_path.iterdir() if "events" in each.name] == [file.name]


def test_what_breaks_off_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half a file nor the draft of one, and what was there stays."""
    file = tmp_path / "events.jsonl"
    file.write_text("precious")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    shown = call("--outbox", path, "export", "-o", file, "--force")
    assert shown.exit_code == 1
    assert "No space left" in shown.stderr
    assert file.read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir() if "events" in each.name] == [file.name]


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_damaged_row_is_exported_too(path: Path, tmp_path: Path, name: str) -> None:
    """As it stands, as far as the format can hold it; it may be evidence."""
    damaged = Path(shutil.copy(path, tmp_path / "damaged.sqlite3"))
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute(
            "UPDATE events SET data = x'00ff', timestamp_ms = 'noon', agent_id = 7 WHERE seq = 2"
        )
    file = tmp_path / name
    shown = call("--outbox", damaged, "export", "-o", file)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.startswith("4 events written")
    if name == "o.parquet":
        row = parquet.read_table(file).to_pylist()[1]
        assert (row["timestamp"], row["agent_id"]) == (None, "7")
        assert "x00" in row["data"]


def test_an_export_without_an_outbox_fails(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No outbox is a failure here: an empty file would be taken for a full account."""
    assert call("--outbox", tmp_path / "none", "export").exit_code == 1
    assert call("--outbox", path, "export", "--format", "xml").exit_code == 2
    assert call("--outbox", path, "export", "-o", tmp_path / "no" / "file").exit_code == 1
    missing: Any = None
    monkeypatch.setitem(sys.modules, "pyarrow", missing)
    shown = call("--outbox", path, "export", "-o", tmp_path / "o.parquet")
    assert shown.exit_code == 2
    assert "pip install 'agent-tracking-sdk[parquet]'" in shown.stderr
    assert not (tmp_path / "o.parquet").exists()


MOST_MEMORY = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_memory_is_bounded(config: MakeConfig, tmp_path: Path, format_: str) -> None:
    """300 MB of events pass through less than 250 MB of memory, libraries included."""
    Outbox(config()).close()
    data = json.dumps({"role": "user", "content": "x" * 5_000})
    with sqlite3.connect(config().outbox_path) as connection:
        connection.executemany(
            "INSERT INTO events (seq, event_id, type, timestamp_ms, digest, chain, data) "
            "VALUES (?, ?, 'message.logged', 0, '', '', ?)",
            ((seq, f"event-{seq}", data) for seq in range(1, 60_001)),
        )
    connection.close()
    file = tmp_path / "out"
    options = ["export", "--format", format_, "-o", file]
    command = [sys.executable, "-m", "tracker.cli.main", "--outbox", config().outbox_path, *options]
    # By way of a small process: at first a child counts what its parent uses as its own.
    done = subprocess.run(
        [sys.executable, "-c", MOST_MEMORY, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    assert int(done.stdout.split()[-1]) * scale < 250_000_000
