"""Sixteen processes on one outbox at ``full``, against bare ``sqlite3`` under one ``flock``."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, Row, bare_rows, config
from tests.benchmarks.pairs import SHOWN, each, percentile
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

    from tests.benchmarks.figure import Scale

PROCESSES = 16

_SPAWN = multiprocessing.get_context("spawn")


class Turn(NamedTuple):
    """One process's turn: when it ran, on the clock that all share, and what its calls took."""

    began: float
    ended: float
    took: list[int]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield throughput and tail of sixteen processes."""
    ours, bare = in_turns(scale.of(6, 3), scale.of(150, 80))
    tails = {
        name: [percentile([t / 1e6 for turns in side for turn in turns for t in turn.took], p)
               for p in SHOWN]
        for name, side in (("tracker ms", ours), ("flock ms", bare))
    }  # fmt: skip
    yield Figure(
        "processes.16",
        f"{PROCESSES} processes on one outbox, full, events per second",
        "16 processes with bare sqlite3 under one flock",
        median(_rate(a) / _rate(b) for a, b in zip(ours, bare, strict=True)),
        least=0.9,
        details={
            "tracker events/s": median(map(_rate, ours)),
            "flock events/s": median(map(_rate, bare)),
            **tails,
        },
    )
    yield Figure(
        "processes.16.p99.9",
        f"{PROCESSES} processes on one outbox, full, a call's p99.9",
        "",
        tails["tracker ms"][2],
        "ms",
        most=20,
    )


def _rate(turns: Sequence[Turn]) -> float:
    seconds = max(turn.ended for turn in turns) - min(turn.began for turn in turns)
    return sum(len(turn.took) for turn in turns) / seconds


def in_turns(rounds: int, calls: int) -> tuple[list[list[Turn]], list[list[Turn]]]:
    """Let all processes log, then insert, round after round; return each round's turns."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        settings = config(folder, durability="full")
        AgentPerformanceTracker(settings).close(timeout=0)
        Bare(settings.outbox_path, folder / "bare.db", "full").close()
        barrier = _SPAWN.Barrier(PROCESSES)
        pipes = []
        for number in range(PROCESSES):
            receiver, sender = _SPAWN.Pipe(duplex=False)
            arguments = (sender, barrier, folder, rounds, calls, number)
            _SPAWN.Process(target=_work, args=arguments, daemon=True).start()
            pipes.append(receiver)
        found = [pipe.recv() for pipe in pipes]
        ours, bare = ([list(turns) for turns in zip(*side, strict=True)]
                      for side in zip(*found, strict=True))  # fmt: skip
        return ours[1:], bare[1:]  # the first round warms up


def _work(
    sender: Connection, barrier: Barrier, folder: Path, rounds: int, calls: int, number: int
) -> None:
    settings = config(folder, durability="full")
    tracker = AgentPerformanceTracker(settings)
    table = Bare(settings.outbox_path, folder / "bare.db", "full")
    lock = os.open(folder / "bare.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def insert(row: Row) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table.insert(row)
        fcntl.flock(lock, fcntl.LOCK_UN)

    ours, bare = [], []
    for _ in range(rounds + 1):
        inserts = [partial(insert, row) for row in bare_rows(calls, number * calls)]
        barrier.wait()
        ours.append(_turn(messages.calls(tracker, calls, number * calls)))
        barrier.wait()
        bare.append(_turn(inserts))
    sender.send((ours, bare))


def _turn(work: Sequence[Callable[[], object]]) -> Turn:
    began = time.monotonic()
    took = each(work)
    return Turn(began, time.monotonic(), took)
