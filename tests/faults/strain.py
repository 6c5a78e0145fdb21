"""Processes that open, write, checkpoint, close and are killed, all at once, on one outbox.

``python -m tests.faults.strain OUTBOX NOTES SECONDS SEED`` forks them, ends when a damaged set
appears or the time is over, and prints its figures as JSON. Log and checkpoints are made small, so
that logs are begun anew all the time; and some processes read an old state for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tracker import APIConfig
from tracker.events import make_event
from tracker.outbox.files import swap
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.outbox.sqlite import engine

if TYPE_CHECKING:
    from collections.abc import Callable

ALIVE = 4
_LIFE_SECONDS = 30


def settings(path: Path) -> APIConfig:
    return APIConfig(api_key="k", client_id="c", base_url="http://127.0.0.1:9", outbox_path=path,
                     on_error="raise", durability="process")  # fmt: skip


class Life:
    """What one process does until it ends or is killed."""

    def __init__(self, path: Path, notes: Path, seed: int) -> None:
        self._path = path
        self._chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def run(self) -> None:
        for _ in range(self._chance.randrange(1, 4)):
            outbox = Outbox(settings(self._path))
            outbox.upload_lock.try_acquire()
            for _ in range(self._chance.randrange(1, 12)):
                self._chance.choice(self._acts())(outbox)
            if self._chance.random() < 0.7:
                outbox.close()

    def _acts(self) -> list[Callable[[Outbox], object]]:
        return [self._write, self._write, self._write_much, Outbox.empty_log, self._settle,
                self._read, self._look, self._look]  # fmt: skip

    def _write(self, outbox: Outbox) -> None:
        for _ in range(self._chance.randrange(1, 30)):
            size = self._chance.choice((0, 100, 1_000, 6_000))
            event = make_event("test.noted", {"text": "x" * size})
            outbox.append(event)
            os.write(self._notes, f"\n{event.event_id}\n".encode())

    def _write_much(self, outbox: Outbox) -> None:
        events = [make_event("test.noted", {"text": "y" * 30_000}) for _ in range(8)]
        outbox.append_all(events)
        os.write(self._notes, "".join(f"\n{event.event_id}\n" for event in events).encode())

    def _settle(self, outbox: Outbox) -> None:
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 20, 1 << 20)
        outbox.run(settlement.settle(batch))

    def _look(self, outbox: Outbox) -> None:
        outbox.maintain(now=True)

    def _read(self, _: Outbox) -> None:
        """Read an old state for a while, as another program does."""
        if os.fork() == 0:  # SQLite's locks are a process's: only another one can be in the way
            signal.alarm(_LIFE_SECONDS)
            with contextlib.suppress(sqlite3.OperationalError):  # the file is just being replaced
                connection = sqlite3.connect(f"file:{self._path}?mode=rw", uri=True)
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM events").fetchall()
                time.sleep(self._chance.uniform(0, 0.5))
            os._exit(0)


def _begin(path: Path, notes: Path, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.alarm(_LIFE_SECONDS)
        try:
            Life(path, notes, seed).run()
        except BaseException:  # noqa: BLE001 - told to the parent by the exit code
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    return pid


def strain(path: Path, notes: Path, seconds: float, seed: int) -> dict[str, int]:
    """Keep processes at work for so long; return figures."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    alive: list[int] = []
    begun = killed = failed = 0
    files = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not swap.damaged_sets(path) and not failed:
        while len(alive) < ALIVE:
            alive.append(_begin(path, notes, seed + begun))
            begun += 1
        time.sleep(chance.uniform(0, 0.04))
        pid = alive.pop(chance.randrange(ALIVE))
        if chance.random() < 0.7:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            killed += 1
        failed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) > 0
        files.add(swap.file_identity(path))
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {
        "begun": begun,
        "killed": killed,
        "failed": failed,
        "files": len(files - {None}),
        "damaged": len(swap.damaged_sets(path)),
    }


def _main(path: str, notes: str, seconds: str, seed: str) -> None:
    engine.WAL_BYTES = 60 * engine.PAGE_BYTES
    sys.stdout.write(json.dumps(strain(Path(path), Path(notes), float(seconds), int(seed))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
