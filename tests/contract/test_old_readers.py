"""A program that reads an old state for long: it is left behind, so that the log stays small."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox import copying, moves, old_readers, open_files, pages, schema
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig
    from tracker.outbox.head import Head

LARGE = 400_000


@pytest.fixture(autouse=True)
def _small_logs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_readers, "LARGE_LOG_BYTES", LARGE)
    monkeypatch.setattr(old_readers, "_LEAST_REST_SECONDS", 0)
    monkeypatch.setattr(old_readers, "_REST", 0)


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    """An outbox of a process that uploads, with one event."""
    opened = Outbox(config(retention_days=1))
    assert opened.upload_lock.try_acquire()
    opened.append(make_event("test.noted", {"n": 0}))
    yield opened
    opened.close()


@pytest.fixture
def reader(outbox: Outbox) -> Iterator[sqlite3.Connection]:
    """Another program that stays in the past."""
    with closing(sqlite3.connect(outbox.path)) as connection:
        connection.execute("BEGIN")
        assert numbers(connection) == [0]
        yield connection


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [
        n
        for (n,) in connection.execute("SELECT json_extract(data, '$.n') FROM events ORDER BY seq")
    ]


def numbers_in(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return numbers(connection)


def log_until(outbox: Outbox, true: Callable[[], bool], start: int = 1) -> int:
    """Log numbered events until something is true; return the next number."""
    end = time.monotonic() + 90
    number = start
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        outbox.append(make_event("test.noted", {"n": number}))
        number += 1
    return number


def test_a_copy_takes_the_place_of_an_outbox_that_is_read_for_long(
    outbox: Outbox, reader: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is begun anew, nothing is lost, and the reader reads on what it read."""
    last = log_until(outbox, lambda: outbox.generation == 2)
    assert pages.log_bytes(outbox.path) < LARGE
    assert numbers_in(outbox.path) == list(range(last))
    assert numbers(reader) == [0]
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "reads an old state" in caplog.text
    assert not moves.damaged_sets(outbox.path)
    assert not copying.leftovers(outbox.path)


def test_other_processes_go_on_in_the_copy(
    outbox: Outbox, reader: sqlite3.Connection, config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """They find another file at the path, see that it goes on from theirs, and say nothing."""
    with closing(Outbox(config(retention_days=1))) as other:
        other.append(make_event("test.noted", {"n": 1}))
        last = log_until(outbox, lambda: outbox.generation == 2, start=2)
        other.append(make_event("test.noted", {"n": last}))
        assert other.owner == outbox.owner
    assert numbers_in(outbox.path) == list(range(last + 1))
    assert "deleted" not in caplog.text


READ_ON = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM events").fetchall()
print("reads", flush=True)
sys.stdin.read()
"""


class OtherProgram:
    """A process that reads an old state until it is closed."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READ_ON, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "reads\n"

    def close(self) -> None:
        self._process.communicate()


def test_no_more_old_files_are_left_to_readers_than_a_few(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reader holds an outbox's worth of the disk: beyond a few the log grows instead."""
    with ExitStack() as programs:
        number = 1
        for generation in (2, 3, 4):
            programs.enter_context(closing(OtherProgram(outbox.path)))
            number = log_until(outbox, lambda made=generation: outbox.generation == made, number)  # type: ignore[misc]
        first = programs.pop_all()
        with closing(OtherProgram(outbox.path)):
            number = log_until(outbox, lambda: "old files of it are still" in caplog.text, number)
            assert outbox.generation == 4
            first.close()
            log_until(outbox, lambda: outbox.generation == 5, number)


def test_a_full_disk_keeps_the_outbox_where_it_is(
    outbox: Outbox,
    reader: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without room for a copy the log grows, the log says why, and health() shows its size."""
    monkeypatch.setattr(copying, "_ROOM_LEFT", 1 << 62)
    last = log_until(outbox, lambda: "no room" in caplog.text)
    assert outbox.health().log_bytes >= LARGE
    assert outbox.generation == 1
    reader.execute("COMMIT")
    last = log_until(outbox, lambda: pages.log_bytes(outbox.path) < LARGE, last)
    assert numbers_in(outbox.path) == list(range(last))
    assert caplog.text.count("no room") == 1


def test_no_copy_is_made_in_vain_beside_a_long_read_of_this_process(
    outbox: Outbox, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not take the outbox's place until that read ends; then it does."""
    made: list[Path] = []
    real = copying.Copy.make

    def make(self: copying.Copy, stopped: Callable[[], bool]) -> bool:
        made.append(outbox.path)
        return real(self, stopped)

    monkeypatch.setattr(copying.Copy, "make", make)
    with outbox.snapshot():
        last = log_until(outbox, lambda: pages.log_bytes(outbox.path) >= 3 * LARGE)
        assert not made
    log_until(outbox, lambda: outbox.generation == 2, last)
    assert made


@pytest.mark.parametrize("died", ["before", "between"])
def test_a_process_that_died_while_it_changed_files(
    outbox: Outbox, reader: sqlite3.Connection, config: MakeConfig, died: str
) -> None:
    """The next one finds the outbox at its path, or the copy that takes its place."""
    last = log_until(outbox, lambda: pages.log_bytes(outbox.path) >= LARGE // 2)
    path, generation = outbox.path, outbox.generation
    with path.open("rb") as file:
        copy = copying.Copy(path, file.fileno())
        assert copy.make(lambda: False)

        def die() -> bool:
            with pytest.MonkeyPatch.context() as patch:
                name = "unlink" if died == "before" else "rename"
                real = getattr(type(path), name)

                def fail(self: Path, *rest: object, **named: object) -> object:
                    if self in (path, moves.copied(path)):
                        raise KeyboardInterrupt
                    return real(self, *rest, **named)

                patch.setattr(type(path), name, fail)
                copy.put_in_place()
            return True

        with pytest.raises(KeyboardInterrupt):
            outbox.exchange(die)
    assert (path.exists(), moves.copied(path).exists()) == (died == "before", True)
    outbox.append(make_event("test.noted", {"n": last}))
    assert outbox.generation == generation + (died == "between")
    outbox.look(now=True)
    with closing(Outbox(config(retention_days=1))) as afterwards:
        afterwards.append(make_event("test.noted", {"n": last + 1}))
    assert numbers_in(path) == list(range(last + 2))


@pytest.mark.parametrize("dies", [False, True])
def test_another_process_makes_an_empty_file_where_the_copy_goes(
    outbox: Outbox,
    reader: sqlite3.Connection,
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dies: bool,
) -> None:
    """It was about to open the outbox, and found none: the copy takes that file's place."""
    last = log_until(outbox, lambda: pages.log_bytes(outbox.path) >= LARGE // 2)
    path, real_unlink, real_rename = outbox.path, type(outbox.path).unlink, type(outbox.path).rename

    def unlink(self: Path, missing_ok: bool = False) -> None:
        real_unlink(self, missing_ok)
        if self == path:
            schema.create_file(path)

    def rename(self: Path, target: Path) -> Path:
        if target == path and dies:
            raise KeyboardInterrupt
        return real_rename(self, target)

    with path.open("rb") as file:
        copy = copying.Copy(path, file.fileno())
        assert copy.make(lambda: False)
        with monkeypatch.context() as patch:
            patch.setattr(type(path), "unlink", unlink)
            patch.setattr(type(path), "rename", rename)
            with pytest.raises(KeyboardInterrupt) if dies else nullcontext():
                outbox.exchange(copy.put_in_place)
    with closing(Outbox(config(retention_days=1))) as other:
        other.append(make_event("test.noted", {"n": last}))
    outbox.append(make_event("test.noted", {"n": last + 1}))
    assert numbers_in(path) == list(range(last + 2))
    assert not copying.leftovers(path)


def test_an_outbox_is_opened_while_a_copy_takes_its_place(
    outbox: Outbox,
    reader: sqlite3.Connection,
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a moment there is none at the path, which must not be the end of an application."""
    last = log_until(outbox, lambda: pages.log_bytes(outbox.path) >= LARGE // 2)
    real = open_files.entered

    def entered(*args: Any, **named: Any) -> None:
        monkeypatch.setattr(open_files, "entered", real)
        with outbox.path.open("rb") as file:
            copy = copying.Copy(outbox.path, file.fileno())
            assert copy.make(lambda: False)
            assert outbox.exchange(copy.put_in_place)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(open_files, "entered", entered)
    with closing(Outbox(config(retention_days=1))) as other:
        other.append(make_event("test.noted", {"n": last}))
    assert numbers_in(outbox.path) == list(range(last + 1))


def test_what_waits_in_memory_at_the_end_goes_to_the_file_that_is_there(
    outbox: Outbox, reader: sqlite3.Connection, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another process put that in the place of the one that was open."""
    other = Outbox(config(retention_days=1))
    with monkeypatch.context() as patch:
        patch.setattr(other._writer, "append", _fail)
        other.append(make_event("test.noted", {"n": -1}))
    log_until(outbox, lambda: outbox.generation == 2)
    other.close()
    assert numbers_in(outbox.path)[-1] == -1


def _fail(*_: object) -> None:
    raise OutboxError("the disk had trouble")


def test_an_erasure_reaches_the_copy_that_a_dead_process_left(config: MakeConfig) -> None:
    """Also where no process uploads, which would remove it in time."""
    with closing(Outbox(config())) as outbox:
        outbox.append(make_event("test.noted", {"n": 0}, user_id="u"))
        left = outbox.path.with_name(f"{outbox.path.name}.copying-4711")
        for file in (left, left.with_name(f"{left.name}-wal"), moves.copied(outbox.path)):
            file.write_bytes(b"what was erased")
        assert outbox.erase("u", {}).scrubbed
        assert [each for each in left.parent.iterdir() if b"erased" in each.read_bytes()[:20]] == []


def test_an_outbox_that_cannot_be_moved_leaves_no_copy(
    outbox: Outbox, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold what is erased later. A file that a container mounts is of that kind."""
    log_until(outbox, lambda: pages.log_bytes(outbox.path) >= LARGE // 2)
    path, real_unlink = outbox.path, type(outbox.path).unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self == path:
            raise OSError(errno.EBUSY, "Device or resource busy")
        real_unlink(self, missing_ok)

    monkeypatch.setattr(type(path), "unlink", unlink)
    with path.open("rb") as file:
        copy = copying.Copy(path, file.fileno())
        assert copy.make(lambda: False)
        with pytest.raises(OutboxError):
            outbox.exchange(copy.put_in_place)
    assert not copying.leftovers(path)


def test_nobody_else_can_read_the_copy_of_the_log(
    outbox: Outbox, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: the folder may be open to others."""
    log_until(outbox, lambda: pages.log_bytes(outbox.path) >= LARGE // 2)
    modes: list[int] = []
    real = copying._take_in_log

    def take_in_log(copied: Path) -> Head:
        modes.append(copied.with_name(f"{copied.name}-wal").stat().st_mode & 0o777)
        return real(copied)

    monkeypatch.setattr(copying, "_take_in_log", take_in_log)
    with outbox.path.open("rb") as file:
        copy = copying.Copy(outbox.path, file.fileno())
        assert copy.make(lambda: False)
        assert outbox.exchange(copy.put_in_place)
    assert modes == [0o600]


def test_two_threads_that_look_at_once_close_an_old_file_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed twice, its number might be another file's by then."""
    readers = outbox._old_readers
    readers.look()
    readers._left.append(os.open(os.devnull, os.O_RDWR))

    def is_read(descriptor: int) -> bool:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=readers.look)
            other.start()
            other.join()
        return False

    monkeypatch.setattr(copying, "is_read", is_read)
    closed: list[int] = []
    monkeypatch.setattr(os, "close", closed.append)
    left = list(readers._left)
    readers.look()
    monkeypatch.undo()
    assert closed == left
    os.close(left[0])


def test_no_call_waits_for_a_long_read_that_begins_when_the_copy_is_ready(
    outbox: Outbox, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy takes the outbox's place meanwhile, or another time."""
    waits: list[float] = []
    real = outbox._snapshots.await_end

    def await_end(seconds: float) -> bool:
        waits.append(seconds)
        return real(seconds)

    monkeypatch.setattr(outbox._snapshots, "await_end", await_end)
    log_until(outbox, lambda: outbox.generation == 2)
    assert waits
    assert not any(waits)


FORK = """
import os, sqlite3, sys, threading
from pathlib import Path
from tracker.config import APIConfig
from tracker.events import make_event
from tracker.outbox import copying, old_readers
from tracker.outbox.outbox import Outbox

old_readers.LARGE_LOG_BYTES = 400_000
outbox = Outbox(APIConfig(client_id="c", api_key="k" * 40, outbox_path=Path(sys.argv[1])))
assert outbox.upload_lock.try_acquire()
copying_now, forked = threading.Event(), threading.Event()
make = copying.Copy.make

def slowly(copy, stopped):
    return make(copy, lambda: copying_now.set() or not forked.wait(30) or stopped())

copying.Copy.make = slowly
outbox.append(make_event("test.noted", {"n": 0}))
reader = sqlite3.connect(outbox.path)
reader.execute("BEGIN")
reader.execute("SELECT count(*) FROM events").fetchall()
while not copying_now.is_set():
    outbox.append(make_event("test.noted", {"n": 0}))
os.register_at_fork(before=lambda: outbox.pause(sys._getframe(1)))
child = os.fork()
if not child:
    outbox.restart_in_child()
    open_here = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    os._exit(any(".copying-" in name for name in open_here))
outbox.resume()
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
outbox.close()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux's /proc what is open")
def test_a_child_does_not_keep_the_copy_open(tmp_path: Path) -> None:
    """It would hold the room of a whole outbox as long as it lives."""
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "outbox.sqlite3")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"
