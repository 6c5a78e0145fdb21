"""Rows that were changed on disk: never sent as if whole, and in nobody's way."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing, suppress
from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import an_event, call, call_json, fill, settle
from tracker import AgentPerformanceTracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.mark.parametrize(("stored", "changed"), [(3, [2]), (3, [3]), (2, [1, 2])])
def test_damaged_rows_become_dead_letters_and_the_others_are_delivered(
    config: MakeConfig, stored: int, changed: list[int]
) -> None:
    """Also where nothing else is pending; what is logged after them is delivered."""
    fill(config(), stored)
    with sqlite3.connect(config().outbox_path) as connection:
        connection.executemany(
            "UPDATE events SET data = '{}' WHERE seq = ?", [(n,) for n in changed]
        )
    connection.close()
    destination = RecordingDestination()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        began = time.monotonic()
        assert tracker.flush().pending == 0
        tracker.start_conversation("agent-1")
        assert tracker.flush().pending == 0
        assert time.monotonic() - began < 20, "a flush waited for what was settled"
    whole = [seq for seq in range(1, stored + 2) if seq not in changed]
    assert [event["seq"] for event in destination.events] == whole
    found = call_json("--outbox", config().outbox_path, "status")
    assert (found["delivered"], found["dead"]) == (len(whole), len(changed))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["identity", "sync_state", "account", "events"])
def test_no_cell_of_any_type_ends_a_command_in_a_traceback(
    config: MakeConfig, tmp_path: Path, table: str
) -> None:
    """Each cell of rows and bookkeeping in turn: the command answers, or says in a line why not."""
    fill(config(), [an_event(), an_event("agent.activity", data={"activity": "x"})])
    settle(config(), 2, dead=[2])
    whole, broken = config().outbox_path, tmp_path / "broken.sqlite3"
    with closing(sqlite3.connect(whole)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    where = " WHERE seq = 2" if table == "events" else ""
    for column, odd in product(columns, ("NULL", "'x'", "x'ff'", "-1", "9223372036854775807")):
        for command in (["status"], ["list"], ["verify"], ["agents"], ["dead", "list"]):
            for left in tmp_path.glob("broken*"):
                left.unlink()
            shutil.copy(whole, broken)
            with closing(sqlite3.connect(broken, isolation_level=None)) as connection:
                connection.execute("PRAGMA ignore_check_constraints=ON")
                with suppress(sqlite3.IntegrityError):
                    connection.execute(f"UPDATE {table} SET {column} = {odd}{where}")  # noqa: S608
            shown = call("--outbox", broken, *command)
            assert isinstance(shown.exception, (SystemExit, type(None))), (column, odd, command)
