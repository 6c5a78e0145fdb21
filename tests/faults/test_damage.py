"""Damage to the outbox's bytes: nothing broken is sent as if whole, nothing whole left behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import an_event, call, call_json
from tests.support.opened import client_of
from tracker import APIConfig, Tracker, canonical
from tracker.erasure import ERASED
from tracker.errors import NotAnOutboxError
from tracker.outbox.files import swap
from tracker.outbox.integrity import chain_key, verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.outbox.queue.settlement import DeadLetter
from tracker.outbox.recovery import damage as damages
from tracker.outbox.schema import tables
from tracker.outbox.sqlite.file_format import log_is_cut
from tracker.outbox.store import ledger
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeConfig

DELIVERED, DEAD, ALL = 60, 3, 150
KEY = "a chain key of the tests, long enough"


class Sample:
    """An outbox with delivered, dead and pending events, half of it in its log, as files to copy.

    Owns nothing open: the files are what a killed process would have left.
    """

    def __init__(self, config: APIConfig, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / config.outbox_path.name
        outbox = Outbox(config)
        for number in range(ALL):
            text = "x" * (9_000 if number % 25 == 0 else number * 97 % 880 + 20)
            outbox.append(an_event(data={"role": "user", "content": text, "n": number}))
            if number == DELIVERED:
                self._settle(outbox)
                outbox.empty_log()
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
            batch = batches.next_batch(connection, DELIVERED, 1 << 30)
        letters = [DeadLetter(seq, "invalid_event", "no") for seq in range(5, 5 + DEAD)]
        outbox.run(settlement.settle(batch, letters))

    def copy_to(self, path: Path) -> None:
        """Put fresh copies at `path`, and the lock file that an outbox in use has beside it."""
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        for suffix in ("", "-wal"):
            shutil.copy(
                self.path.with_name(self.path.name + suffix), path.with_name(path.name + suffix)
            )
        path.with_name(f"{path.name}.lock").write_bytes(damages.LOCK_MARK)


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
                    f"SELECT {tables.EVENT} FROM events WHERE seq = ?",  # noqa: S608 - constant text
                    (seq,),
                ).fetchone()
                if row and canonical.digest_of(*row) == row[7]:
                    found.add(row[0])
            except (sqlite3.Error, TypeError, ValueError, AttributeError):
                continue
    for file in work.parent.glob(f"{work.name}*"):
        file.unlink()
    return found


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


def flip_schema(chance: random.Random, path: Path) -> str:
    """Change one byte of what the schema says, or just before it, in a file without a log."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    path.with_name(f"{path.name}-wal").touch()
    content = bytearray(path.read_bytes())
    (statement,) = chance.choice(found)
    head = statement.encode()[:200]  # the rest of a long one is on another page
    at = content.index(head) + chance.randrange(-40, len(head))
    content[at] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    return "schema"


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
    kind = damage(random.Random(seed), path)  # noqa: S311 - chance, not secrecy
    whole = readable(path, path.with_name("work"))
    received = RecordingDestination()
    with Tracker(config, destination=lambda: received) as tracker:
        fresh = [tracker.track("fault.survived", {"n": n}) for n in range(3)]
        tracker.flush(20)
        tracker.track("fault.survived", {"n": 3})
        assert tracker.flush(20).pending == 0, (kind, seed)
        sets = tracker.health().damaged_sets
        kept = client_of(path).read(_ids)
        book = tracker.health()
        problems = client_of(path).read(verify.verify).problems
    arrived = {event["event_id"]: event for event in received.events}
    assert set(fresh) <= set(arrived), (kind, seed)
    for name, event in arrived.items():  # none invented, none changed
        if not event["type"].startswith(("fault.", "events.discarded")):
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


def test_the_damaged_set_is_kept_and_shown(
    sample: Sample, config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The log, `health`, `status` and `doctor` say where it lies; nothing overwrites it."""
    path = config().outbox_path
    for _ in range(2):
        for suffix in ("", "-wal"):
            shutil.copy(
                sample.path.with_name(sample.path.name + suffix),
                path.with_name(path.name + suffix),
            )
        with path.open("r+b") as file:
            file.write(b"garbage" * 3)
        Outbox(config()).close()
    sets = [str(file) for file in swap.damaged_sets(path)]
    assert len(sets) == 2
    with Tracker(config(), destination=RecordingDestination) as tracker:
        assert [str(file) for file in tracker.health().damaged_sets] == sets
    assert call_json("--outbox", path, "status")["damaged_sets"] == sets
    assert all(name in call("--outbox", path, "status").stdout for name in sets)
    checks = {check["name"]: check for check in call_json("--outbox", path, "doctor")["checks"]}
    assert checks["damaged files"]["status"] == "warning"
    assert all(name in checks["damaged files"]["message"] for name in sets)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert all("were kept: " + name in line for name, line in zip(sets, said, strict=True))


def test_states_and_erasures_come_over(sample: Sample, config: MakeConfig) -> None:
    """Delivered and dead stay so; a row that an event says was erased comes over, no other."""
    path = config().outbox_path
    sample.copy_to(path)
    outbox = Outbox(config())
    with outbox.reading() as connection:
        named, unnamed = connection.exec_driver_sql(
            "SELECT event_id FROM events WHERE seq IN (10, 11) ORDER BY seq"
        ).scalars()
    outbox.append(an_event("compliance.erased", data={"subject": "s", "event_ids": [named]}))
    outbox.run(
        lambda job: job.connection.exec_driver_sql(
            "UPDATE events SET data = ? WHERE seq IN (10, 11)", (ERASED,)
        )
    )
    outbox.close()
    with path.open("r+b") as file:
        file.write(bytes(90))
    outbox = Outbox(config())
    with outbox.reading() as connection:
        book = ledger.read(connection)
        rows = connection.exec_driver_sql("SELECT event_id, data FROM events")
        data = {name: text for name, text in rows}  # noqa: C416 - dict() does not take rows
        dead = connection.exec_driver_sql("SELECT dead_code FROM events WHERE dead_at_ms > 0").all()
    outbox.close()
    assert data[named] == ERASED
    assert unnamed not in data
    assert [code for (code,) in dead] == ["invalid_event"] * DEAD
    # An event says what was delivered under the id of the damaged outbox.
    assert (book.delivered, book.dead, book.pending) == (DELIVERED - DEAD - 1, DEAD, ALL - 59 + 1)
    assert book.discarded == {}


def test_a_log_damaged_in_its_middle_is_noticed_on_opening(
    sample: Sample, config: MakeConfig
) -> None:
    """SQLite would drop, without a word, all that was committed behind the damaged frame."""
    path = config().outbox_path
    sample.copy_to(path)
    log = path.with_name(f"{path.name}-wal")
    assert not log_is_cut(path)
    content = bytearray(log.read_bytes())
    content[32 + 24 + 300] ^= 1
    log.write_bytes(content)
    assert log_is_cut(path)
    whole = readable(path, path.with_name("work"))
    outbox = Outbox(config())
    with outbox.reading() as connection:
        kept = _ids(connection)
    outbox.close()
    assert len(whole) < ALL - 50
    assert len(kept) >= ALL - 2


OPEN_WHILE_IT_LOOKS_CUT = """
from tracker import Tracker
from tracker.outbox.sqlite import file_format
looks = iter([True])  # a moment that nobody can arrange: the log was just begun again
file_format.log_is_cut = lambda path: next(looks, False)
with Tracker() as tracker:
    tracker.track("test.noted", {})
assert next(looks, None) is None, "it did look"
"""


def test_a_log_that_is_begun_anew_while_it_is_looked_at_is_not_taken_for_damaged(
    config: MakeConfig,
) -> None:
    """What looks cut while others write is looked at again when nobody does."""
    environment = {
        **os.environ,
        "SDK_API_KEY": "k",
        "SDK_CLIENT_ID": config().client_id,
        "SDK_BASE_URL": config().base_url,
        "SDK_OUTBOX_PATH": str(config().outbox_path),
    }
    with closing(Outbox(config())) as outbox:
        outbox.append(an_event())
        program = [sys.executable, "-c", OPEN_WHILE_IT_LOOKS_CUT]
        subprocess.run(program, env=environment, check=True)
    assert swap.damaged_sets(config().outbox_path) == []
    with closing(Outbox(config())) as outbox, outbox.snapshot() as connection:
        assert verify.verify(connection).events == 2


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "emptied"])
def test_the_log_outlives_its_file(sample: Sample, config: MakeConfig, gone: bool) -> None:
    """SQLite would delete a log whose file is empty, and the pending events in it."""
    path = config().outbox_path
    sample.copy_to(path)
    path.unlink() if gone else os.truncate(path, 0)
    outbox = Outbox(config())
    with outbox.reading() as connection:
        kept = _ids(connection)
    outbox.close()
    assert len(kept) >= ALL - DELIVERED - 1


def test_what_is_not_an_outbox_is_left_alone(config: MakeConfig) -> None:
    """Another program's lock file beside it does not make it ours."""
    path = config().outbox_path
    path.write_bytes(os.urandom(9_000))
    path.with_name(f"{path.name}.lock").write_text("pid 17")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(NotAnOutboxError):
        Outbox(config())
    assert before == {
        file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()
    }


@pytest.mark.parametrize("step", ["ready", "aside"])
def test_a_salvage_that_was_cut_short_is_finished(
    sample: Sample, config: MakeConfig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed before or after the damaged file left its place, the next one loses nothing."""
    path = config().outbox_path
    sample.copy_to(path)
    with path.open("r+b") as file:
        file.write(bytes(90))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(swap, "free_name" if step == "ready" else "finish", die)
        with pytest.raises(KeyboardInterrupt):
            Outbox(config())
    assert path.exists() == (step == "ready")
    outbox = Outbox(config())
    with outbox.reading() as connection:
        assert len(_ids(connection)) == ALL + 1  # which says what was delivered before
    outbox.close()
    assert len(swap.damaged_sets(path)) == 1
    assert not path.with_name(f"{path.name}.salvaged").exists()


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("damage", "times"), [(flip, 600), (flip_schema, 300), (zero, 150), (cut, 150)]
)
def test_random_damage(
    sample: Sample,
    config: MakeConfig,
    damage: Callable[[random.Random, Path], str],
    times: int,
    full: bool,
    tell: Callable[[str], None],
) -> None:
    """Of the rows that SQLite could read, at least 99 % live on, and the host notices nothing."""
    figures = Figures()
    for seed in range(times if full else times // 50):
        figures.update(survive(sample, config(), damage, seed))
    tell(f"random damage{figures}")
    whole = sum(count for name, count in figures.items() if name.endswith("readable"))
    missed = sum(count for name, count in figures.items() if name.endswith("missed"))
    assert missed <= whole / 100


@pytest.mark.parametrize("before", [None, KEY], ids=["without a key before", "with it"])
def test_the_new_outbox_is_chained_under_the_key(
    tmp_path: Path, config: MakeConfig, before: str | None
) -> None:
    """It remembers the key from its first event on; what was carried over is not proven."""
    settings = config(chain_key=KEY)
    sample = Sample(config(chain_key=before), tmp_path / "sample")
    sample.copy_to(settings.outbox_path)
    with settings.outbox_path.open("r+b") as file:
        file.write(bytes(90))
    outbox = Outbox(settings)
    outbox.append_all([an_event(data={"n": 1})])
    with outbox.reading() as connection:
        memory = chain_key.read(connection)
    with outbox.snapshot() as connection:
        report = verify.verify(connection, [KEY.encode()])
    outbox.close()
    assert memory == (canonical.key_check(KEY.encode()), True)
    assert report.ok
    assert not report.proven
    assert report.last_seq == ALL + 2, "one says what was delivered under the former id"


def test_an_erasure_tells_of_damaged_files(sample: Sample, config: MakeConfig) -> None:
    """They hold what no erasure reaches."""
    path = config().outbox_path
    sample.copy_to(path)
    with path.open("r+b") as file:
        file.write(bytes(90))
    outbox = Outbox(config())
    assert not outbox.erase("nobody", {}).scrubbed
    for file_aside in swap.damaged_sets(path):
        file_aside.unlink()
    assert outbox.erase("nobody", {}).scrubbed
    outbox.close()


def test_what_was_read_before_a_salvage_does_no_harm_after(
    sample: Sample, config: MakeConfig
) -> None:
    """A batch read in advance is not sent, and letters by old seqs bury nobody else."""
    path = config().outbox_path
    sample.copy_to(path)
    outbox = Outbox(config())
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 10, 1 << 30)
        first = DeadLetter(batch.rows[0].seq, settlement.DAMAGED, "no")
        assert batches.is_next(connection, batch)
    outbox.close()
    with path.open("r+b") as file:
        file.write(bytes(90))
    outbox = Outbox(config())
    outbox.run(settlement.set_aside(batch, [first]))
    with outbox.reading() as connection:
        assert not batches.is_next(connection, batch)
        assert ledger.read(connection).dead == DEAD
    outbox.close()


def test_events_logged_together_survive_damage(config: MakeConfig) -> None:
    """As one logged alone: they are stored in the new outbox, and the call returns."""
    outbox = Outbox(config(on_error="raise"))
    outbox.append(an_event(data={"n": 0}))
    outbox.path.unlink()
    outbox.connections.write_connection._sure_until = 0.0
    outbox.append_all([an_event(data={"n": n}) for n in (1, 2)])
    with outbox.reading() as connection:
        assert ledger.read(connection).pending == 3
    outbox.close()
