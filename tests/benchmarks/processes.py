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

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, Row, bare_rows, config
from tests.benchmarks.pairs import SHOWN, each, percentile
from tests.support.slow_disk import CANNOT, slow_disk
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

    from tests.benchmarks.figure import Scale

PROCESSES = 16
_SLOWER_MS = (1, 3, 10)

_SPAWN = multiprocessing.get_context("spawn")


class Turn(NamedTuple):
    """One process's turn: when it ran, on the clock that all share, and what its calls took."""

    began: float
    ended: float
    took: list[int]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield throughput and tail of sixteen processes, then on disks that flush slowly."""
    turns = in_turns(scale.of(6, 3), scale.of(150, 80))
    yield _throughput("processes.16", "", turns, 0.8)
    yield Figure(
        "processes.16.p99.9",
        f"{PROCESSES} processes on one outbox, full, a call's p99.9",
        "",
        _tail(turns[0])[2],
        "ms",
        most=20,
    )
    if CANNOT:
        return
    with tempfile.TemporaryDirectory() as directory:
        for slower in _SLOWER_MS:
            slow = slow_disk(Path(directory), slower)
            turns = children.run(
                in_turns, 2, scale.of(60, 25), timeout=150, leader=True, environment=slow
            )
            how = f", flushes {slower} ms slower"
            yield _throughput(f"processes.16.slow.{slower}", how, turns, 2.5)


def _throughput(
    name: str, how: str, turns: tuple[list[list[Turn]], list[list[Turn]]], least: float
) -> Figure:
    ours, bare = turns
    return Figure(
        name,
        f"{PROCESSES} processes on one outbox, full, events per second{how}",
        "16 processes with bare sqlite3 under one flock",
        median(_rate(a) / _rate(b) for a, b in zip(ours, bare, strict=True)),
        least=least,
        details={
            "tracker events/s": median(map(_rate, ours)),
            "flock events/s": median(map(_rate, bare)),
            "tracker ms": _tail(ours),
            "flock ms": _tail(bare),
        },
    )


def _tail(side: Sequence[Sequence[Turn]]) -> list[float]:
    took = [one / 1e6 for turns in side for turn in turns for one in turn.took]
    return [percentile(took, percent) for percent in SHOWN]


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
        pipes, workers = [], []
        for number in range(PROCESSES):
            receiver, sender = _SPAWN.Pipe(duplex=False)
            arguments = (sender, barrier, folder, rounds, calls, number)
            worker = _SPAWN.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            workers.append(worker)
            pipes.append(receiver)
        found = [pipe.recv() for pipe in pipes]
        for worker in workers:
            worker.kill()  # without its farewell to a server that is away
            worker.join()
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
