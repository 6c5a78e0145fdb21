"""Bytes that an event costs the disk at ``full``, against a bare insert of the same row."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, config
from tests.benchmarks.pairs import turns
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.benchmarks.figure import Scale

_TURN = 200


class Written(NamedTuple):
    """Of /proc/self/io: bytes sent towards the disk, bytes given to write calls, such calls."""

    write_bytes: int
    wchar: int
    syscw: int


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figure; the WAL's checkpoints are part of it on both sides."""
    events, ours, bare = children.run(in_turns, scale.of(20, 8), timeout=110)
    part = "write_bytes" if bare.write_bytes else "wchar"  # a RAM disk writes nothing
    yield Figure(
        "disk.event",
        f"written per event ({part}), full",
        "",
        getattr(ours, part) / events / 1000,
        "kB",
        most=9,
    )
    yield Figure(
        "disk",
        f"bytes written per event ({part}), full",
        "sqlite3 insert + commit of the same row, in SQLite's usual pages",
        getattr(ours, part) / getattr(bare, part),
        details={
            f"{name} {field} per event": value / events
            for name, side in (("tracker", ours), ("bare", bare))
            for field, value in side._asdict().items()
        },
    )


def in_turns(rounds: int) -> tuple[int, Written, Written]:
    """Log, then insert the same rows in a bare table, and so on.

    Returns how many events, and what each side wrote for them.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        settings = config(folder, durability="full")
        tracker = AgentPerformanceTracker(settings)
        table = Bare(settings.outbox_path, folder / "bare.db", "full")
        ours, bare = [], []
        for _ in turns(rounds):
            ours.append(_written_by(messages.calls(tracker, _TURN)))
            bare.append(_written_by([partial(table.insert, row) for row in table.new_rows()]))
        tracker.close(timeout=0)
        table.close()
        events = (len(ours) - 1) * _TURN
        return events, _sum(ours[1:]), _sum(bare[1:])  # the first turn makes the files


def _written_by(calls: Sequence[Callable[[], object]]) -> Written:
    before = _so_far()
    for call in calls:
        call()
    return Written(*(b - a for a, b in zip(before, _so_far(), strict=True)))


def _so_far() -> Written:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    read = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return Written(*(read[field] for field in Written._fields))


def _sum(several: list[Written]) -> Written:
    return Written(*(sum(column) for column in zip(*several, strict=True)))
