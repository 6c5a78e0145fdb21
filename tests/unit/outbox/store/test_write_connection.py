"""Group commit: many callers, one order, and nobody pays for another's fault."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import sqlite3
import threading
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.files.file_lock import FileLock
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import dead_letters, settlement, sync_state
from tracker.outbox.queue.settlement import DeadLetter
from tracker.outbox.store.write_connection import SURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker import APIConfig
    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction


@pytest.fixture
def outbox(config: Callable[..., APIConfig]) -> Iterator[Outbox]:
    opened = Outbox(config(on_error="raise"))
    yield opened
    opened.close()


def contents(outbox: Outbox) -> list[Any]:
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT json_extract(data, '$.n') FROM events ORDER BY seq"
        )
        return [n for (n,) in rows]


def note(n: object) -> Any:
    return make_event("test.noted", {"n": n})


class Gate:
    """A job that holds the writer until it is told to go on, so that others queue behind it."""

    def __init__(self, outbox: Outbox) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self._thread = threading.Thread(target=outbox.run, args=(self._wait,))

    def _wait(self, _: Transaction) -> None:
        self.entered.set()
        self.go_on.wait(30)

    def __enter__(self) -> Gate:
        self._thread.start()
        assert self.entered.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._thread.join()


def queued(outbox: Outbox, count: int) -> None:
    """Wait until so many callers are in the queue, behind the one at work."""
    while len(outbox.connections.writer._queue) - 1 < count:
        threading.Event().wait(0.001)


def test_those_who_wait_share_a_commit(outbox: Outbox) -> None:
    """Callers that come while another commits are committed together, in one transaction."""
    threads = [threading.Thread(target=outbox.append, args=(note(n),)) for n in range(20)]
    commits = 0

    def count(_: Transaction) -> None:
        nonlocal commits
        commits += 1

    with Gate(outbox):
        for thread in threads:
            thread.start()
        queued(outbox, 20)
        with outbox.reading() as connection:
            before = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
    for thread in threads:
        thread.join()
    with outbox.reading() as connection:
        after = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
    assert sorted(contents(outbox)) == list(range(20))
    assert after - before == 1, "the reader saw one change of the file"


def test_one_callers_fault_is_not_the_others(outbox: Outbox) -> None:
    """A job that fails takes nobody down with it: those queued beside it are stored."""
    outcomes: list[object] = []

    def fail(transaction: Transaction) -> None:
        transaction.append(note("from the failing job"))
        transaction.connection.exec_driver_sql("SELECT * FROM no_such_table")

    def run(work: Callable[[], object]) -> None:
        try:
            outcomes.append(work())
        except OutboxError as error:
            outcomes.append(error)

    works: list[Callable[[], object]] = [
        lambda: outbox.append(note(1)),
        lambda: outbox.run(fail),
        lambda: outbox.append(note(2)),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    with Gate(outbox):
        for number, thread in enumerate(threads):
            thread.start()
            queued(outbox, number + 1)
    for thread in threads:
        thread.join()
    assert contents(outbox) == [1, 2]
    (error,) = (outcome for outcome in outcomes if outcome is not None)
    assert isinstance(error, OutboxError)
    assert "no such table" in str(error)


def test_the_account_covers_an_appended_event_from_the_next_change_on(outbox: Outbox) -> None:
    """It is then not written again for that event when the outbox is closed."""
    outbox.append(make_event("test.noted", {"n": 1}))
    covered = [not outbox.connections.write_connection.unanchored]
    outbox.run(lambda transaction: transaction.touch())
    covered.append(not outbox.connections.write_connection.unanchored)
    assert covered == [False, True]


def test_what_was_cut_off_after_a_change_shows(outbox: Outbox) -> None:
    """As after each receipt: the newest events cannot go without a trace, though nobody closed."""
    for number in range(3):
        outbox.append(note(number))
    outbox.run(sync_state.request_flush)
    with contextlib.closing(sqlite3.connect(outbox.path)) as other, other:
        other.execute("DELETE FROM events WHERE seq = 3")
    with outbox.snapshot() as connection:
        assert (3, "gap") in [
            (found.seq, found.kind) for found in verify.verify(connection).problems
        ]


def test_nobody_writes_without_the_lock(outbox: Outbox) -> None:
    """A process that does not get it in time says so, and stores nothing."""
    outbox.append(note(1))
    outbox.connections.lock.patience = 0.05
    path = outbox.path.with_name(outbox.path.name + ".lock")
    with closing(FileLock(path)) as lock:
        lock.acquire()
        for _ in range(2):
            with pytest.raises(OutboxError, match="was not released within"):
                outbox.append(note(2))
        with pytest.raises(OutboxError, match="was not released within"):
            outbox.rewrite()
        assert contents(outbox) == [1]
    append_soon(outbox, note(3))
    assert contents(outbox) == [1, 3]


def append_soon(outbox: Outbox, event: Event) -> None:
    """Append an event, which may fail until the wait that was given up has ended."""
    end = monotonic() + 10
    while monotonic() < end:
        with contextlib.suppress(OutboxError):
            outbox.append(event)
            return
        threading.Event().wait(0.005)
    raise AssertionError("the lock stays taken")


def test_a_lock_file_that_was_deleted_is_made_again(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The next write holds the new one: those who begin now know of no other."""
    outbox.append(note(1))
    path = outbox.path.with_name(outbox.path.name + ".lock")
    path.unlink()
    threading.Event().wait(2 * SURE_SECONDS)

    def work(transaction: Transaction) -> None:
        transaction.append(note(2))
        with closing(FileLock(path)) as lock:
            assert not lock.try_acquire(), "the write lock is not held"

    outbox.run(work)
    assert contents(outbox) == [1, 2]
    assert "was deleted or replaced; it is created again" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are found in /proc")
def test_a_lock_whose_descriptor_is_another_files_by_now_is_taken_again(
    outbox: Outbox, tmp_path: Path
) -> None:
    """Code that closes descriptors it does not own must not leave writers without a lock."""
    outbox.append(note(1))
    pid = os.fork()
    if pid == 0:  # with descriptors of its own to spoil
        try:
            signal.alarm(20)
            write_with_a_lost_lock(outbox, tmp_path / "other")
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert contents(outbox) == [1, "before", "after"]


def write_with_a_lost_lock(outbox: Outbox, elsewhere: Path) -> None:
    outbox.append(note("before"))
    path = outbox.path.with_name(outbox.path.name + ".lock")
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    [descriptor] = [int(link.name) for link in links if link.samefile(path)]
    with elsewhere.open("w") as other:
        os.dup2(other.fileno(), descriptor)
        threading.Event().wait(2 * SURE_SECONDS)

        def work(transaction: Transaction) -> None:
            transaction.append(note("after"))
            with closing(FileLock(path)) as lock, elsewhere.open() as same:
                assert not lock.try_acquire(), "the write lock is not held"
                fcntl.flock(same, fcntl.LOCK_EX | fcntl.LOCK_NB)

        outbox.run(work)
        assert os.path.sameopenfile(descriptor, other.fileno()), "it was not ours to close"


def test_writers_of_one_file_take_turns(outbox: Outbox, config: Callable[..., APIConfig]) -> None:
    """Where another process wrote meanwhile, seq and chain go on from there, without a gap."""
    other = Outbox(config(on_error="raise"))
    try:
        for number in range(100):
            (other if number % 7 in (2, 3, 6) else outbox).append(note(number))
    finally:
        other.close()
    assert contents(outbox) == list(range(100))
    with outbox.snapshot() as connection:
        report = verify.verify(connection)
    assert (report.problems, report.last_seq) == ((), 100)


def test_what_another_process_removed_is_not_numbered_again(
    outbox: Outbox, config: Callable[..., APIConfig]
) -> None:
    """A seq stays taken when its event, written and removed by another process, was the newest."""
    outbox.append(note(1))
    other = Outbox(config(on_error="raise"))
    try:
        other.append(note(2))
        refused = [DeadLetter(2, "invalid_event", "no")]
        other.run(lambda transaction: settlement.mark_dead(transaction.connection, refused))
        assert other.run(dead_letters.discard()) == 1
    finally:
        other.close()
    outbox.append(note(3))
    with outbox.snapshot() as connection:
        report = verify.verify(connection)
    assert (report.problems, report.events, report.last_seq) == ((), 3, 4), "with one that tells"


def test_order_is_kept_within_each_thread(outbox: Outbox) -> None:
    """However threads mix, each one's events keep their order and the chain holds."""

    def work(thread: int) -> None:
        for number in range(50):
            outbox.append(note(thread * 1000 + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = contents(outbox)
    assert len(stored) == 400
    for thread_number in range(8):
        own = [n for n in stored if n // 1000 == thread_number]
        assert own == sorted(own)
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()


class Alarm:
    """Does what Ctrl-C does, once, after some seconds; nothing once it is disarmed."""

    def __init__(self) -> None:
        self._armed = False

    def arm(self, seconds: float) -> None:
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def disarm(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def ring(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    before = signal.signal(signal.SIGALRM, made.ring)
    yield made
    made.disarm()
    signal.signal(signal.SIGALRM, before)


def test_interrupted_while_waiting(outbox: Outbox, alarm: Alarm) -> None:
    """Ctrl-C in a call that waits for others reaches the caller, and the writer goes on."""
    with Gate(outbox) as gate:
        opener = threading.Timer(0.2, gate.go_on.set)
        opener.start()
        alarm.arm(0.05)
        with pytest.raises(KeyboardInterrupt):
            outbox.append(note("interrupted"))
    opener.join()
    outbox.append(note("after"))
    assert contents(outbox) == ["after"], "what was not committed yet is withdrawn"


def test_interrupted_while_leading(outbox: Outbox, alarm: Alarm) -> None:
    """Ctrl-C in the leading call withdraws that call's work alone; those behind are stored."""
    others = [threading.Thread(target=outbox.append, args=(note(n),)) for n in range(3)]

    def endless(transaction: Transaction) -> None:
        transaction.append(note("withdrawn"))
        for thread in others:
            thread.start()
        queued(outbox, 3)
        alarm.arm(0.01)
        threading.Event().wait(30)

    with pytest.raises(KeyboardInterrupt):
        outbox.run(endless)
    for thread in others:
        thread.join()
    outbox.append(note("after"))
    assert sorted(map(str, contents(outbox))) == ["0", "1", "2", "after"]


@pytest.mark.filterwarnings(
    # An alarm that falls into a weak reference's callback cannot be raised there.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_interrupted_at_random(outbox: Outbox, alarm: Alarm) -> None:
    """Whenever Ctrl-C falls, what returned is stored once and the chain holds."""
    returned = []
    for number in range(150):
        with contextlib.suppress(KeyboardInterrupt):
            try:
                alarm.arm(0.0001 + (number % 30) * 0.00002)
                outbox.append(note(number))
                returned.append(number)
            finally:
                alarm.disarm()
    gc.collect()  # connections that were cut off in the making: their warnings belong here
    stored = contents(outbox)
    assert set(returned) <= set(stored)
    assert len(set(stored)) == len(stored)
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()


def test_a_signal_handler_may_log(outbox: Outbox) -> None:
    """What a handler logs that interrupts a logging call is on disk when its own call returns.

    It comes again and again, also before the interrupted call can get any further.
    """
    handled: list[str] = []
    missing: list[str] = []

    def handler(*_: object) -> None:
        text = f"handler {len(handled)}"
        outbox.append(note(text))
        handled.append(text)
        with contextlib.closing(sqlite3.connect(outbox.path)) as other:
            query = "SELECT count(*) FROM events WHERE json_extract(data, '$.n') = ?"
            if other.execute(query, (text,)).fetchone() != (1,):
                missing.append(text)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        for number in range(300):
            outbox.append(note(number))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    stored = contents(outbox)
    assert handled
    assert not missing
    assert [n for n in stored if isinstance(n, int)] == list(range(300))
    assert sum(isinstance(n, str) for n in stored) == len(handled)


def test_a_pause_waits_for_its_turn(outbox: Outbox) -> None:
    """It comes between commits, keeps later calls out, and everybody goes on after it."""
    paused = threading.Event()
    resume = threading.Event()

    def work() -> None:
        paused.set()
        resume.wait(30)

    pauser = threading.Thread(target=outbox.connections.writer.alone, args=(work,))
    early, late = (threading.Thread(target=outbox.append, args=(note(n),)) for n in (1, 2))
    with Gate(outbox):
        early.start()
        queued(outbox, 1)
        pauser.start()
        queued(outbox, 2)
    assert paused.wait(30)
    early.join()
    late.start()
    queued(outbox, 0)
    late.join(0.1)
    assert contents(outbox) == [1]
    resume.set()
    for thread in (pauser, late):
        thread.join()
    assert contents(outbox) == [1, 2]


def test_a_forked_child_is_not_held_up(outbox: Outbox) -> None:
    """A child forked without any care taken before still begins with locks of its own."""
    entered, go_on = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        go_on.wait(30)

    leading = threading.Thread(target=outbox.connections.writer.alone, args=(work,))
    leading.start()
    assert entered.wait(30)
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            outbox.restart_in_child()
            outbox.append(note("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    go_on.set()
    leading.join()
    assert contents(outbox) == ["child"]
