"""Power loss on the worst of disks: the process's own writes, dropped and reordered by sector."""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import oracle, trace
from tests.faults.victim import Order
from tests.support.conversations import ROOT
from tracker.outbox.files.swap import damaged_sets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeConfig

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(trace.CANNOT is not None, reason=trace.CANNOT or ""),
]


def test_every_state_that_a_power_cut_can_leave_holds_what_was_acknowledged(
    tmp_path: Path, config: MakeConfig, full: bool, tell: Callable[[str], None]
) -> None:
    """Whatever unsynced sectors a cut drops, the outbox is sound and nothing acknowledged lost."""
    replayed = replay(
        tmp_path, config, "full", states=1_200 if full else 36, large=31 if full else 3
    )
    tell(f"power loss, unsynced sectors dropped or reordered | {replayed}")
    assert replayed.acknowledged
    assert not replayed.lost


def test_the_model_of_the_disk_loses_what_was_not_synced(
    tmp_path: Path, config: MakeConfig, full: bool, tell: Callable[[str], None]
) -> None:
    """Durability "process" promises less, and so it shows that the states do lose events."""
    replayed = replay(tmp_path, config, "process", states=200 if full else 12, large=3)
    tell(f"the same with durability process | {replayed}")
    assert replayed.lost


@dataclass
class Replayed:
    """What became of events over many states; those acknowledged count once for each state."""

    states: int = 0
    acknowledged: int = 0
    lost: int = 0
    states_with_loss: int = 0
    begun_anew: int = 0

    def __str__(self) -> str:
        return (
            f"{self.states:,} states, {self.acknowledged:,} acknowledged in all of them | "
            f"{self.lost:,} lost, in {self.states_with_loss} states | "
            f"{self.begun_anew} times taken for damaged, and begun anew with all of it"
        )


def replay(
    tmp_path: Path, config: MakeConfig, durability: str, *, states: int, large: int
) -> Replayed:
    """Tell a story, cut the power at so many random calls of it, and deliver what is left."""
    chance, result = random.Random(), Replayed()  # noqa: S311 - not secrets
    settings = {"api_key": "k", "client_id": "c", "base_url": "http://127.0.0.1:9",
                "durability": durability}  # fmt: skip
    told, calls = tell_story(tmp_path, settings, large)
    disk = trace.Disk(tmp_path / "new")
    at = sorted(chance.randrange(first_call(calls, disk), len(calls)) for _ in range(states))
    notes: list[dict[str, Any]] = []
    received: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        disk.follow(call)
        if call.name == "write" and call.path == told.notes:
            notes.append(json.loads(call.data))
            assert disk.folder_kept or durability == "process", "the folder was never synced"
        if call.name == "write" and call.path == told.arguments[0]:
            received += [json.loads(line) for line in call.data.splitlines()]
        while result.states < states and at[result.states] == index:
            result.states += 1
            state = tmp_path / "state"
            disk.cut_power(state, chance)
            after = config(**settings, outbox_path=state / "outbox.sqlite3", on_error="raise")
            if durability == "full":  # otherwise even whose outbox it is may be lost with the log
                oracle.examine(after)
            rest = oracle.deliver_the_rest(after)
            oracle.examine(after)
            if damaged_sets(after.outbox_path):  # another outbox, which numbers anew
                result.begun_anew += 1
                rest = [{**event, "seq": event["seq"] + len(calls)} for event in rest]
            arrived = oracle.merge(received, rest)
            forgotten = {note["writer"] for note in notes if "forgotten" in note["writer"]}
            forgotten.add("writer-forgotten")
            lost = oracle.judge(notes, arrived, forgotten=forgotten).lost
            result.acknowledged += len(notes)
            result.lost += len(lost)
            result.states_with_loss += bool(lost)
            shutil.rmtree(state)
    return result


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
