"""Damage to the outbox's bytes: nothing broken is sent as if whole, nothing whole is left behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import an_event, call, call_json
from tracker import APIConfig, Tracker, canonical
from tracker.errors import NotAnOutboxError
from tracker.outbox import account, integrity, replacement, uploads
from tracker.outbox.outbox import Outbox
from tracker.outbox.pages import log_is_cut
from tracker.outbox.uploads import DeadLetter
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

DELIVERED, DEAD, ALL = 60, 3, 150
_COLUMNS = "event_id, type, timestamp_ms, agent_id, session_id, user_id, data, digest"


class Sample:
    """An outbox with delivered, dead and pending events, half of it in its log, as files to copy.

    Owns nothing open: the files are what a killed process would have left.
    """

    def __init__(self, config: APIConfig, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / config.outbox_path.name
        outbox = Outbox(config)
        for number in range(ALL):
            text = "x" * (9_000 if number % 25 == 0 else random.Random(number).randint(20, 900))
            outbox.append(an_event(data={"role": "user", "content": text, "n": number}))
            if number == DELIVERED:
                self._settle(outbox)
                outbox._writer.empty_log()
        with outbox.reading() as connection:
            rows = connection.exec_driver_sql("SELECT event_id, delivered_at_ms, data FROM events")
            self.events = {name: (when is not None, data) for name, when, data in rows}
        for suffix in ("", "-wal"):
            source = config.outbox_path.with_name(config.outbox_path.name + suffix)
            shutil.copy(source, self.path.with_name(self.path.name + suffix))
        outbox.close()
        for file in config.outbox_path.parent.glob(f"{config.outbox_path.name}*"):
            file.unlink()

    @staticmethod
    def _settle(outbox: Outbox) -> None:
        with outbox.reading() as connection:
            batch = uploads.next_batch(connection, DELIVERED, 1 << 30)
        letters = [DeadLetter(seq, "invalid_event", "no") for seq in range(5, 5 + DEAD)]
        outbox.run(uploads.settle(batch, letters, received=True))

    def copy_to(self, path: Path) -> None:
        """Put fresh copies at `path`, and the lock file that an outbox in use has beside it."""
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        for suffix in ("", "-wal"):
            shutil.copy(
                self.path.with_name(self.path.name + suffix), path.with_name(path.name + suffix)
            )
        path.with_name(f"{path.name}.lock").write_bytes(replacement.LOCK_MARK)


@pytest.fixture
def sample(config: MakeConfig, tmp_path: Path) -> Sample:
    return Sample(config(), tmp_path / "sample")


def readable(path: Path, work: Path) -> set[str]:
    """Return the events that SQLite itself can read, row by row, and that match their digests."""
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), work.with_name(work.name + suffix))
    found = set()
    with closing(sqlite3.connect(work)) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")
        for seq in range(1, ALL + 1):
            try:
                row = connection.execute(
                    f"SELECT {_COLUMNS} FROM events WHERE seq = ?",  # noqa: S608 - constant text
                    (seq,),
                ).fetchone()
                if row and canonical.digest(canonical.envelope(*row[:-1])) == row[-1]:
                    found.add(row[0])
            except (sqlite3.Error, TypeError, ValueError):
                continue
    for file in work.parent.glob(f"{work.name}*"):
        file.unlink()
    return found


Damage = "Callable[[random.Random, Path], str]"


def flip(chance: random.Random, path: Path) -> str:
    """Change one byte of file or log."""
    suffix = chance.choice(["", "-wal"])
    with path.with_name(path.name + suffix).open("r+b") as file:
        at = chance.randrange(os.fstat(file.fileno()).st_size)
        file.seek(at)
        byte = file.read(1)[0] ^ chance.randrange(1, 256)
        file.seek(at)
        file.write(bytes([byte]))
    return f"flip{suffix}"


def zero(chance: random.Random, path: Path) -> str:
    """Zero one page of file or log."""
    suffix = chance.choice(["", "-wal"])
    with path.with_name(path.name + suffix).open("r+b") as file:
        file.seek(chance.randrange(os.fstat(file.fileno()).st_size // 4096) * 4096)
        file.write(bytes(4096))
    return f"zero{suffix}"


def cut(chance: random.Random, path: Path) -> str:
    """Cut file or log off."""
    suffix = chance.choice(["", "-wal"])
    file = path.with_name(path.name + suffix)
    os.truncate(file, chance.randrange(1, file.stat().st_size))
    return f"cut{suffix}"


class Figures(Counter[str]):
    """Totals over many damaged outboxes."""

    def __str__(self) -> str:
        kinds = sorted({key.split(" ")[0] for key in self})
        names = ["cases", "salvages", "readable", "arrived", "missed", "rescued", "lost"]
        lines = ["".join(f"{name:>10}" for name in ["damage", *names])]
        lines += [
            "".join([f"{kind:>10}", *(f"{self[f'{kind} {name}']:>10,}" for name in names)])
            for kind in kinds
        ]
        return "\n" + "\n".join(lines)


def survive(
    sample: Sample, config: APIConfig, damage: Callable[[random.Random, Path], str], seed: int
) -> Counter[str]:
    """Damage a copy, let a tracker open it, log and deliver; return what became of the events."""
    path = config.outbox_path
    sample.copy_to(path)
    kind = damage(random.Random(seed), path)
    whole = readable(path, path.with_name("work"))
    received = RecordingDestination()
    with Tracker(config, destination=lambda: received) as tracker:
        fresh = [tracker.track("fault.survived", {"n": n}) for n in range(3)]
        tracker.flush(20)
        tracker.track("fault.survived", {"n": 3})
        assert tracker.flush(20).pending == 0, (kind, seed)
        sets = tracker.health().damaged_sets
        kept = tracker._client.read(_ids)
        book = tracker.health()
        problems = tracker._client.read(integrity.verify).problems
    arrived = {event["event_id"]: event for event in received.events}
    assert set(fresh) <= set(arrived), (kind, seed)
    for name, event in arrived.items():  # none invented, none changed
        if not event["type"].startswith("fault."):
            assert json.loads(sample.events[name][1]) == event["data"], (kind, seed)
    assert book.accepted == (
        book.delivered + book.pending + book.dead + sum(book.discarded.values())
    )
    if sets:
        assert problems == (), (kind, seed, problems)
    there = set(arrived) | kept
    undelivered = {name for name, (delivered, _) in sample.events.items() if not delivered}
    return Counter(
        {
            f"{kind} cases": 1,
            f"{kind} salvages": len(sets),
            f"{kind} readable": len(whole),
            f"{kind} arrived": len(whole & there),
            f"{kind} missed": len(whole - there),
            f"{kind} rescued": len((there & set(sample.events)) - whole),
            f"{kind} lost": len(undelivered - there),
        }
    )


def _ids(connection: Any) -> set[str]:
    rows = connection.exec_driver_sql(
        "SELECT event_id FROM events WHERE dead_code IS NULL OR dead_code <> 'damaged'"
    )
    return {name for (name,) in rows}


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("damage", "times"), [(flip, 400), (zero, 100), (cut, 100)])
def test_random_damage(
    sample: Sample,
    config: MakeConfig,
    damage: Callable[[random.Random, Path], str],
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the rows that SQLite could read, at least 99 % live on, and the host notices nothing."""
    figures = Figures()
    for seed in range(times):
        figures.update(survive(sample, config(), damage, seed))
    with capsys.disabled():
        print(figures)
    whole = sum(count for name, count in figures.items() if name.endswith("readable"))
    missed = sum(count for name, count in figures.items() if name.endswith("missed"))
    assert missed <= whole / 100
