"""Nothing but damage is taken for damage, whoever is killed while others begin the log anew."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.faults import figures, strain
from tests.support.conversations import ROOT
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_800)]


def test_no_salvage_without_damage(
    tmp_path: Path, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes open, write, checkpoint, close and die on one outbox: it stays, and is whole."""
    path, notes = tmp_path / "outbox.sqlite3", tmp_path / "notes"
    seconds, seed = 600 if full else 6, random.SystemRandom().randrange(1 << 30)
    program = [sys.executable, "-m", "tests.faults.strain", str(path), str(notes)]
    run = subprocess.run(
        [*program, str(seconds), str(seed)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    with closing(Outbox(strain.settings(path))) as outbox, outbox.snapshot() as connection:
        ids = set(connection.exec_driver_sql("SELECT event_id FROM events").scalars())
        problems = verify.verify(connection).problems
    # A kill can cut a note off.
    noted = {line for line in notes.read_text(encoding="ascii").splitlines() if len(line) == 36}
    missing = noted - ids
    if full:
        figures.say(capsys, f"no salvage without damage, {len(ids)} events, {found}, seed {seed}")
    assert not found["failed"], run.stderr
    assert not found["damaged"], run.stderr
    assert not missing
    assert not problems
    assert found["files"] == 1, "another file took the outbox's place"
    if full:  # in short, a slow machine may not come to it
        assert found["killed"] > 1_000
