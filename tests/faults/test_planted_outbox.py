"""Fault 10, intrusion: an outbox that somebody else made, or changed, before we opened it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.faults import oracle
from tests.faults.test_replaced import until
from tests.migration.test_schema import FIXTURES, restore
from tests.support import cli
from tracker import AgentPerformanceTracker, NotAnOutboxError, OutboxError, Tracker, TrackerError
from tracker.outbox.outbox import Outbox
from tracker.outbox.recovery.supervisor import Supervisor
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig

pytestmark = pytest.mark.faults

FOREVER = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"


def rewritten(table: str, old: str, new: str) -> str:
    """Return a script that changes a table's definition behind SQLite's back."""
    return (
        "PRAGMA writable_schema=ON; UPDATE sqlite_master SET "  # noqa: S608 - the test's own
        f"sql = replace(sql, '{old}', '{new}') WHERE name = '{table}'"
    )


# ruff: noqa: ISC004 - a script and the name that the refusal gives
PLANTED = {
    "a trigger that deletes what is logged": (
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
        "trigger 't'",
    ),
    "a trigger that swallows what is logged": (
        "CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT RAISE(IGNORE); END",
        "trigger 't'",
    ),
    "a trigger that never ends": (
        f"CREATE TRIGGER t BEFORE UPDATE ON events BEGIN {FOREVER}; END",
        "trigger 't'",
    ),
    "a trigger that undoes deletions": (
        "CREATE TRIGGER t BEFORE DELETE ON events BEGIN SELECT RAISE(IGNORE); END",
        "trigger 't'",
    ),
    "a trigger on a view": (
        "CREATE TRIGGER t INSTEAD OF INSERT ON pending BEGIN DELETE FROM events; END",
        "trigger 't'",
    ),
    "a trigger on a deed of ours": (
        "CREATE TRIGGER t AFTER UPDATE ON sync_state "
        "BEGIN UPDATE identity SET base_url = 'https://evil.example'; END",
        "trigger 't'",
    ),
    "a view that never ends": (
        f"DROP VIEW pending; CREATE VIEW pending AS {FOREVER}",
        "view 'pending'",
    ),
    "a view in the place of a table": (
        f"DROP TABLE sync_state; CREATE VIEW sync_state AS {FOREVER}",
        "view 'sync_state'",
    ),
    "a view in the place of a table, in capitals": (
        f"DROP TABLE gaps; CREATE VIEW GAPS AS {FOREVER}",
        "view 'GAPS'",
    ),
    "a view in the place of a function": (
        f"CREATE VIEW json_each AS {FOREVER}",
        "view 'json_each'",
    ),
    "a view in the place of the revision": (
        f"DROP TABLE alembic_version; CREATE VIEW alembic_version AS {FOREVER}",
        "view 'alembic_version'",
    ),
    "a table more": ("CREATE TABLE loot (a)", "table 'loot'"),
    "a virtual table": (
        "DROP TABLE gaps; CREATE VIRTUAL TABLE gaps USING fts5(first_seq, last_seq, chain)",
        "table 'gaps'",
    ),
    "an index on an expression": (
        "CREATE INDEX i ON events (length(hex(zeroblob(100000000))))",
        "index 'i'",
    ),
    "another index by our name": (
        "DROP INDEX ix_events_dead; "
        "CREATE UNIQUE INDEX ix_events_dead ON events (coalesce(user_id, seq))",
        "index 'ix_events_dead'",
    ),
    "a generated column": (
        "ALTER TABLE events ADD COLUMN g AS (hex(zeroblob(100000000)))",
        "table 'events'",
    ),
    "a constraint that refuses everything": (
        rewritten("events", "data TEXT NOT NULL", "data TEXT NOT NULL CHECK (seq < 0)"),
        "table 'events'",
    ),
    "a constraint that swallows": (
        rewritten("events", "digest TEXT NOT NULL", "digest TEXT NOT NULL ON CONFLICT IGNORE"),
        "table 'events'",
    ),
    "a constraint moved": (rewritten("sync_state", "id = 1", "id = 23"), "table 'sync_state'"),
    "a table of another kind": (
        "DROP TABLE account; CREATE TABLE account "
        "(entry TEXT NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (entry)) WITHOUT ROWID",
        "table 'account'",
    ),
}


def plant(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_schema_is_refused_at_once(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is named, nothing of it acts, nothing is written; without it the outbox is as before."""
    settings = config(base_url="http://127.0.0.1:9")
    monkeypatch.setenv("SDK_OUTBOX_PATH", str(settings.outbox_path))
    cli.fill(settings, 3)
    whole = settings.outbox_path.read_bytes()
    script, named = PLANTED[what]
    plant(settings.outbox_path, script)
    planted = settings.outbox_path.read_bytes()
    begun = time.monotonic()
    with pytest.raises(NotAnOutboxError, match=named):
        AgentPerformanceTracker(settings)
    shown = cli.call("status")
    assert shown.exit_code != 0
    assert named in shown.stderr.replace("\n", " ")
    assert time.monotonic() - begun < 20, "whatever it is, it was evaluated"
    assert settings.outbox_path.read_bytes() == planted
    settings.outbox_path.write_bytes(whole)
    destination = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        tracker.flush(10)
    assert [event["seq"] for event in destination.events] == [1, 2, 3]


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
        "ALTER TABLE events ADD COLUMN g AS (hex(zeroblob(500000000)))",
        rewritten("gaps", "last_seq INTEGER", "last_seq INTEGER CHECK (0)"),
        f"DROP TABLE gaps; CREATE VIEW gaps AS {FOREVER}",
    ],
)
@pytest.mark.parametrize("age", ["0001", "0002"])
def test_an_older_file_is_looked_at_before_it_is_migrated(
    config: MakeConfig, age: str, script: str
) -> None:
    """An attacker may stamp a file as old, to be let in by the migration."""
    settings = config()
    restore(FIXTURES / f"outbox_{age}.sql", settings.outbox_path)
    plant(settings.outbox_path, script)
    before = settings.outbox_path.read_bytes()
    with pytest.raises(NotAnOutboxError, match="changed by somebody"):
        Outbox(settings, check_owner=False)
    assert settings.outbox_path.read_bytes() == before


def test_what_operators_do_is_not_taken_for_an_attack(config: MakeConfig) -> None:
    """ANALYZE, VACUUM, another quoting, white space and order of columns change nothing."""
    settings = config(base_url="http://127.0.0.1:9")
    cli.fill(settings, 3)
    plant(
        settings.outbox_path,
        "ANALYZE; VACUUM; ALTER TABLE gaps RENAME TO g; DROP TABLE g; "
        'CREATE TABLE "gaps" (proof TEXT, chain   TEXT NOT NULL, last_seq INTEGER NOT NULL,\n'
        '"first_seq" INTEGER NOT NULL, PRIMARY KEY (first_seq))',
    )
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one()
    assert count == 3


def test_a_view_of_somebodys_own_is_left_alone(config: MakeConfig) -> None:
    """It is never evaluated, whatever it is, and is there for its maker afterwards."""
    settings = config(base_url="http://127.0.0.1:9")
    cli.fill(settings, 3)
    views = [
        "mine AS SELECT type, count(*) AS events FROM events GROUP BY type",
        f'"for ever" AS {FOREVER}',
        "broken AS SELECT a FROM nowhere",
    ]
    plant(settings.outbox_path, "; ".join(f"CREATE VIEW {view}" for view in views))
    destination = RecordingDestination()
    begun = time.monotonic()
    with Tracker(settings, destination=lambda: destination) as tracker:
        tracker.track("test.noted")
        assert tracker.flush(20).pending == 0
        tracker.compliance.erase_subject("nobody")
    for command in ("verify", "doctor", "prune --days 0", "status"):
        shown = cli.call("--outbox", settings.outbox_path, *command.split())
        assert isinstance(shown.exception, (SystemExit, type(None))), (command, shown.exception)
    assert time.monotonic() - begun < 30
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert dict(connection.execute("SELECT * FROM mine"))


@pytest.mark.parametrize("age", ["0001", "0002"])
def test_a_view_of_somebodys_own_outlasts_a_migration(config: MakeConfig, age: str) -> None:
    """Nor does it hinder one."""
    settings = config()
    restore(FIXTURES / f"outbox_{age}.sql", settings.outbox_path)
    own = "CREATE VIEW b AS SELECT a FROM nowhere; CREATE VIEW mine AS " + FOREVER  # noqa: S608 - constant text
    plant(settings.outbox_path, own)
    Outbox(settings, check_owner=False).close()
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    assert {"mine", "b"} <= set(names)


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE identity SET client_id = zeroblob(10), base_url = 7",
        "UPDATE identity SET created_at_ms = 'long ago'",
        "UPDATE sync_state SET settled_through = 'never', last_error = zeroblob(9)",
        "INSERT OR REPLACE INTO account VALUES ('stored', 'many', NULL)",
        "UPDATE alembic_version SET version_num = '0%03'",
        "UPDATE alembic_version SET version_num = zeroblob(4)",
    ],
)
@pytest.mark.parametrize("when", ["before it is opened", "while it is in use"])
def test_damaged_bookkeeping_is_salvaged(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, script: str, when: str
) -> None:
    """The schema is ours, so no code hides in it; the rows prove themselves by their digests."""
    monkeypatch.setattr(Supervisor, "check_seconds", 0.1)
    settings = config(base_url="http://127.0.0.1:9")
    cli.fill(settings, 3)
    if when == "before it is opened":
        plant(settings.outbox_path, script)
    elif "alembic" in script:
        pytest.skip("nobody reads the revision while the outbox is in use")
    destination = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        assert tracker.flush(20).pending == 0
        if when == "while it is in use":
            plant(settings.outbox_path, script)
            until(lambda: tracker.health().damaged_sets)
        tracker.log_user_message("s", "fresh")
        assert tracker.flush(20).pending == 0
        health = tracker.health()
    assert len(health.damaged_sets) == 1
    # Where some were delivered before, an event says that they were.
    logged = [event for event in destination.events if event["type"] != "events.discarded"]
    assert health.accepted == (5 if when == "while it is in use" else 4)
    assert len({event["event_id"] for event in logged}) == 4


def test_huge_and_odd_values_neither_stop_nor_break_the_upload(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that nobody logged become dead letters; what was logged goes out, in order."""
    settings = config(base_url="http://127.0.0.1:9")
    cli.fill(settings, 2)
    columns = "event_id, type, timestamp_ms, digest, chain, data"
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        for number, values in enumerate(
            [
                "'e', 't', 1, 'd', 'c', hex(zeroblob(32000000))",
                "zeroblob(9), 't', 1, 'd', 'c', '{}'",
                "'x', zeroblob(1000000), 'later', 5, 5.5, zeroblob(1000000)",
                "'y', '', 9e999, '', '', '" + "[" * 100_000 + "'",
                "9223372036854775807, -9223372036854775808, -1, 0, 0, 0",
                "'z', char(0), 1, char(233), char(233), zeroblob(7)",
            ]
        ):
            connection.execute(
                f"INSERT INTO events (seq, {columns}) VALUES ({number + 3}, {values})"  # noqa: S608 - the test's own
            )
        connection.commit()
    destination = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        fresh = tracker.log_user_message("s", "fresh")
        assert tracker.flush(20).pending == 0
    assert [event["seq"] for event in destination.events] == [1, 2, 9]
    assert oracle.logged(destination.events)[-1]["event_id"] == fresh
    monkeypatch.setenv("SDK_OUTBOX_PATH", str(settings.outbox_path))
    for command in ("list", "status", "verify", "conversations", "metrics", "stats", "dead list"):
        shown = cli.call(*command.split())
        assert isinstance(shown.exception, (SystemExit, type(None))), (command, shown.exception)


@pytest.mark.parametrize(
    "script",
    [
        "DELETE FROM sync_state",
        "DELETE FROM identity",
        "DELETE FROM alembic_version",
        "UPDATE alembic_version SET version_num = zeroblob(1000000)",
        "UPDATE identity SET client_id = zeroblob(10), base_url = 7",
        "UPDATE sync_state SET settled_through = 'never', last_error = zeroblob(9)",
        "UPDATE sync_state SET settled_through = 9223372036854775807",
        "INSERT INTO account (entry, events) VALUES ('delivered', 'many'), (zeroblob(5), -7)",
        "INSERT INTO gaps VALUES (1, 9223372036854775807, zeroblob(9), zeroblob(9))",
        "INSERT INTO gaps VALUES (1, 9223372036854775807, 'x', 'x')",
        "INSERT OR REPLACE INTO account (entry, events) VALUES ('stored', 9223372036854775807)",
        "UPDATE events SET chain = zeroblob(9)",
        "UPDATE events SET chain = char(233), digest = char(233)",
        "DROP TABLE gaps",
        "DROP TABLE account",
        "DROP INDEX ix_events_session_id",
    ],
)
def test_an_outbox_with_senseless_rows_costs_no_more_than_itself(
    config: MakeConfig, script: str
) -> None:
    """It is refused by the package's own errors or goes on; the host sees nothing else."""
    settings = config(base_url="http://127.0.0.1:9")
    cli.fill(settings, 3)
    plant(settings.outbox_path, script)
    destination = RecordingDestination()
    begun = time.monotonic()
    try:
        with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
            tracker.log_user_message("s", "fresh")
            tracker.flush(0.3)
            tracker.close(0)
    except TrackerError:  # anything else would be the host's to bear
        pass
    assert time.monotonic() - begun < 15


# --- files ----------------------------------------------------------------------------------------


def test_nobody_else_can_read_the_files_even_under_umask_0(tmp_path: Path) -> None:
    """Outbox, log, index, lock files and the made folders are the user's alone."""
    program = """
import os, stat, sys
os.umask(0)
from pathlib import Path
from tracker import APIConfig, AgentPerformanceTracker
settings = APIConfig(api_key="k", base_url="http://127.0.0.1:9")
tracker = AgentPerformanceTracker(settings)
tracker.log_user_message("s", "private")
tracker.flush(0.2)
for path in [settings.outbox_path.parent, *settings.outbox_path.parent.iterdir()]:
    print(stat.S_IMODE(path.stat().st_mode) & 0o077, path.name)
tracker.close(0)
"""
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(cli.ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert [line for line in shown if not line.startswith("0 ")] == []
    suffixes = ("sqlite3", "-wal", "-shm", ".lock", ".sync-lock")
    for suffix in suffixes:
        assert any(line.endswith(suffix) for line in shown), f"{suffix}: {shown}"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock", ".sync-lock"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_planted_link_is_refused(
    config: MakeConfig, tmp_path: Path, suffix: str, dangling: bool
) -> None:
    """Whatever file of ours it stands for, nothing is written through it and nothing is made."""
    settings: APIConfig = config(base_url="http://127.0.0.1:9", on_error="raise")
    target = tmp_path / "precious"
    if not dangling:
        target.write_bytes(b"precious")
        target.chmod(0o644)
    path = settings.outbox_path
    path.with_name(path.name + suffix).symlink_to(target)
    refused = contextlib.nullcontext() if suffix == ".sync-lock" else pytest.raises(OutboxError)
    with refused, AgentPerformanceTracker(settings) as tracker:
        tracker.log_user_message("s", "x")
        # The worker opens the upload lock: its log says so, and calls go on.
        assert tracker.flush(0.2).pending == 1
    assert target.exists() is not dangling
    if not dangling:
        assert target.read_bytes() == b"precious"
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
