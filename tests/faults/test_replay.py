"""Power loss on the worst of disks: the process's own writes, dropped and reordered by sector."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import oracle, trace
from tests.faults.victim import Order
from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(trace.CANNOT is not None, reason=trace.CANNOT or ""),
]


def test_every_state_that_a_power_cut_can_leave_holds_what_was_acknowledged(
    tmp_path: Path, config: MakeConfig, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever unsynced sectors a cut drops, the outbox is sound and nothing acknowledged lost."""
    states, chance = 1_100 if full else 40, random.Random()  # noqa: S311 - not secrets
    settings = {"api_key": "k", "client_id": "c", "base_url": "http://127.0.0.1:9"}
    told, calls = tell_story(tmp_path, settings, large=31 if full else 3)
    disk = trace.Disk(tmp_path / "new")
    at = sorted(chance.randrange(first_call(calls, disk), len(calls)) for _ in range(states))
    notes, received, lost, number = [], [], 0, 0
    began, checked = time.monotonic(), 0
    for index, call in enumerate(calls):
        disk.follow(call)
        if call.name == "write" and call.path == told.notes:
            notes.append(json.loads(call.data))
            assert disk.folder_kept, "the folder itself was never synced"
        if call.name == "write" and call.path == told.arguments[0]:
            received += [json.loads(line) for line in call.data.splitlines()]
        while number < states and at[number] == index:
            number += 1
            state = tmp_path / "state"
            disk.cut_power(state, chance)
            after = config(**settings, outbox_path=state / "outbox.sqlite3", on_error="raise")
            oracle.examine(after)
            arrived = oracle.merge(received, oracle.deliver_the_rest(after))
            forgotten = {note["writer"] for note in notes if "forgotten" in note["writer"]}
            forgotten.add("writer-forgotten")
            lost += len(oracle.judge(notes, arrived, forgotten=forgotten).lost)
            checked += len(notes)
            shutil.rmtree(state)
    oracle.print_figures(
        full, capsys, "power loss, writes dropped and reordered", states=states,
        calls_replayed=len(calls), acknowledged=checked, lost=lost,
        took=f"{time.monotonic() - began:.0f} s",
    )  # fmt: skip
    assert checked
    assert not lost


def tell_story(
    tmp_path: Path, settings: dict[str, Any], large: int
) -> tuple[Order, list[trace.Call]]:
    """Record a process that logs, uploads, prunes, erases, closes and begins again.

    Of some 30 large events, the log grows so long that it is written back amid them.
    """
    given = {**settings, "outbox_path": str(tmp_path / "new" / "outbox.sqlite3"),
             "on_error": "raise", "flush_interval": 0.02}  # fmt: skip
    complaints = tmp_path / "complaints"
    order = Order("a_story", "writer", given, str(tmp_path / "acknowledged"), str(complaints),
                  arguments=[str(tmp_path / "received"), str(large), "3"])  # fmt: skip
    command = [sys.executable, "-m", "tests.faults.victim", json.dumps(asdict(order))]
    calls = trace.record(command, ROOT, tmp_path / "trace")
    assert not complaints.exists(), complaints.read_text()
    return order, calls


def first_call(calls: list[trace.Call], disk: trace.Disk) -> int:
    """Return where the outbox begins to be made."""
    return next(index for index, call in enumerate(calls) if disk.concerns(call))
