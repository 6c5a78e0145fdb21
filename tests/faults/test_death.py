"""Process death: SIGKILL at random instants, whatever the process is doing."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults import oracle
from tests.faults.victim import Nursery, Opening, Order
from tests.migration.test_schema import FIXTURES, restore
from tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2_400)]

OPENING_SECONDS = 1.0
"""What opening may take of the CPU, each time, and of the clock, in the middle of all times: what
else the machine does, and its disk, are not the outbox's to promise."""


class Death(NamedTuple):
    """A way to die: the role, the latest instant, and whether it counts from `ready`."""

    role: str
    latest: float
    await_ready: bool = False


DEATHS = (
    Death("in_threads", 0.15),
    Death("in_threads", 0.08, await_ready=True),
    Death("in_processes", 0.20),
    Death("in_processes", 0.10, await_ready=True),
    Death("in_forks", 0.20),
    Death("in_forks", 0.10, await_ready=True),
    Death("spawned", 2.0),
    Death("at_checkpoints", 0.30, await_ready=True),
    Death("at_prunes", 0.08, await_ready=True),
    Death("at_erasures", 0.12, await_ready=True),
    Death("at_commands", 0.15, await_ready=True),
    Death("at_commands", 0.30),
    Death("at_exit", 0.05, await_ready=True),
    Death("at_exit", 0.15),
)
COMMANDS = ("flush", "status", "verify", "prune --days 0", "migrate", "list", "stats", "doctor",
            "dead list", "conversations", "rebind", "export --output /dev/null",
            "erase v7-forgotten0 --yes", "metrics", "usage", "unclosed")  # fmt: skip


def settings(collector: CollectorProcess, path: Path) -> dict[str, Any]:
    return {
        "api_key": collector.api_key,
        "client_id": collector.client_id,
        "base_url": collector.url,
        "outbox_path": str(path),
        "on_error": "raise",  # or what waits in memory would count as acknowledged
        "flush_interval": 0.01,
        "backoff_base": 0.01,
        "backoff_cap": 0.05,
    }


def test_killed_at_any_instant_over_one_outbox(
    collector: CollectorProcess, tmp_path: Path, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the processes on an outbox were doing when killed, nothing acknowledged is lost."""
    kills, chance = 1_000 if full else 24, random.Random()  # noqa: S311 - instants, not secrets
    given = settings(collector, tmp_path / "outbox.sqlite3")
    notes, complaints = tmp_path / "acknowledged", tmp_path / "complaints"
    openings, began, commands = [], time.monotonic(), itertools.cycle(COMMANDS)
    with Nursery() as nursery:
        for number in range(kills):
            death = DEATHS[number % len(DEATHS)]
            order = Order(
                death.role, f"v{number}", given, str(notes), str(complaints),
                after=chance.uniform(0, death.latest), await_ready=death.await_ready,
                parent_first=chance.random() < 0.5,
                arguments=next(commands).split() if death.role == "at_commands" else [],
            )  # fmt: skip
            openings.append(nursery.kill_one(order))
            assert not complaints.exists(), complaints.read_text()
    verdict = judge_collected(collector, order, notes)
    oracle.print_figures(
        full, capsys, "process death", kills=kills,
        dead_while_logging=heard(notes),
        acknowledged=verdict.acknowledged,
        lost=len(verdict.lost), opening=summary(openings),
        took=f"{time.monotonic() - began:.0f} s",
    )  # fmt: skip
    assert not verdict.lost
    check_openings(openings)


def check_openings(openings: Sequence[Opening]) -> None:
    """See that an outbox opens in time, whatever became of its last user."""
    assert max(opening.cpu for opening in openings) < OPENING_SECONDS
    assert statistics.median(opening.wall for opening in openings) < OPENING_SECONDS


def summary(openings: Sequence[Opening]) -> str:
    """Return how long opening took."""
    walls = sorted(opening.wall for opening in openings)
    return (
        f"{walls[len(walls) // 2] * 1e3:.0f} ms p50 {walls[len(walls) * 99 // 100] * 1e3:.0f} ms "
        f"p99 {walls[-1] * 1e3:.0f} ms at most, {max(o.cpu for o in openings) * 1e3:.0f} ms CPU "
        "at most"
    )


def heard(notes: Path) -> int:
    """Return how many victims had something acknowledged before they died."""
    writers = {note["writer"] for note in oracle.acknowledged(notes)} - {"afterwards"}
    return len({writer.split("-")[0] for writer in writers})


def judge_collected(collector: CollectorProcess, order: Order, notes: Path) -> oracle.Verdict:
    """Deliver the rest to the collector, and judge what it has."""
    with Tracker(order.config) as tracker:
        writer = oracle.Writer(tracker, "afterwards", notes)
        writer.say()
        assert tracker.flush(timeout=120).pending == 0
    book = oracle.examine(order.config)
    assert book.pending <= 1, "a checkpoint may have become due"
    assert book.dead == 0
    events = collector.events()
    (outbox,) = collector.outboxes()
    assert (outbox["missing"], outbox["chain"]) == ([], "intact")
    acknowledged = oracle.acknowledged(notes)
    assert acknowledged[-1]["id"] in {event["event_id"] for event in events}, "a fresh event"
    forgotten = {n["writer"] for n in acknowledged if "forgotten" in n["writer"]}
    return oracle.judge(acknowledged, events, forgotten=forgotten)


def test_killed_during_migration(
    tmp_path: Path, config: MakeConfig, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outbox of an older version that is killed while it is carried over keeps every row."""
    kills, chance = 150 if full else 8, random.Random()  # noqa: S311 - instants, not secrets
    old = tmp_path / "old.sqlite3"
    restore(FIXTURES / "outbox_0001.sql", old)
    with closing(sqlite3.connect(old)) as connection:
        pending = [row for (row,) in connection.execute("SELECT event_id FROM pending")]
        kept = connection.execute("SELECT client_id, base_url FROM identity").fetchone()
    notes, complaints = tmp_path / "acknowledged", tmp_path / "complaints"
    openings: list[Opening] = []
    acknowledged, unfinished = 0, 0
    with Nursery() as nursery:
        for number in range(kills):
            path = tmp_path / str(number) / "outbox.sqlite3"
            path.parent.mkdir()
            shutil.copyfile(old, path)
            given = {"api_key": "k", "client_id": kept[0], "base_url": kept[1],
                     "outbox_path": str(path), "on_error": "raise"}  # fmt: skip
            order = Order("at_migration", f"m{number}", given, str(notes), str(complaints),
                          after=chance.uniform(0, 0.12), await_ready=True)  # fmt: skip
            openings.append(nursery.kill_one(order))
            assert not complaints.exists(), complaints.read_text()
            mine = [note for note in oracle.acknowledged(notes) if note["id"] not in pending]
            mine = [note for note in mine if note["writer"].startswith(f"m{number}-")]
            unfinished += not mine
            rest = oracle.deliver_the_rest(config(**given))
            assert [event["event_id"] for event in rest][: len(pending)] == pending
            assert not oracle.judge(mine, rest[len(pending) :]).lost
            oracle.examine(config(**given))
            acknowledged += len(mine) + len(pending)
    oracle.print_figures(
        full, capsys, "death during migration", kills=kills, before_the_first_event=unfinished,
        acknowledged=acknowledged, lost=0, opening=summary(openings),
    )  # fmt: skip
    check_openings(openings)
