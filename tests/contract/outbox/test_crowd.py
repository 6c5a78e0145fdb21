"""Processes that wait for each other: one commits for all, and each knows what became of its own.

Each "process" is an outbox of its own on the same file, with its own locks and connections.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import slow_disk
from tracker.clock import monotonic, sleep
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.files import paths, pipe
from tracker.outbox.files.pipe import Pipe
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.sqlite import file_format
from tracker.outbox.store.handover import Handover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.outbox.store.transaction import Transaction

pytestmark = pytest.mark.skipif(not pipe.SUFFICES, reason="a pipe is too small for an event here")


def note(n: object) -> Any:
    return make_event("test.noted", {"n": n})


class Crowd:
    """One process that holds the write lock until told otherwise, and others that wait for it."""

    def __init__(self, config: MakeConfig, waiting: int = 3, **more: Any) -> None:
        self.config = config(on_error="raise", **more)
        self.path = self.config.outbox_path
        self.holder, *self.others = [Outbox(self.config) for _ in range(waiting + 1)]
        for outbox in (self.holder, *self.others):
            outbox.append(note("first"))
        self.pipe = Pipe(paths.handover(self.path), like=self.path)
        self._free = threading.Event()
        self._threads = ThreadPoolExecutor(2 * waiting + 1)
        self._held: Future[None] | None = None

    def hold(self) -> None:
        entered = threading.Event()

        def job(_: Transaction) -> None:
            entered.set()
            assert self._free.wait(30)

        self._free.clear()
        self._held = self._threads.submit(self.holder.run, job)
        assert entered.wait(30)

    def release(self) -> None:
        self._free.set()
        assert self._held is not None
        self._held.result(30)

    def call(self, number: int, *events: Any) -> Future[None]:
        """Let another process store events, and return when it has offered what it does offer."""
        outbox = self.others[number]
        call = outbox.append if len(events) == 1 else lambda *given: outbox.append_all(given)
        made = self._threads.submit(call, *events)
        while outbox.connections.writer.waiting_since() is None and not made.done():
            sleep(0.001)
        sleep(0.05)
        return made

    def offered(self) -> list[bytes]:
        """Take what is offered, and lose it, like a process that dies at once."""
        self.pipe.send(b"open")
        return [line for line in self.pipe.take() if line != b"open"]

    def commits(self) -> int:
        with paths.log(self.path).open("rb") as log:
            size = file_format.log_page_bytes(log)
            return sum(frame.commits for frame in file_format.frames(log, size))

    def stored(self) -> list[str]:
        with self.holder.reading() as connection:
            found = connection.exec_driver_sql("SELECT event_id FROM events ORDER BY seq")
            return [event_id for (event_id,) in found]

    def close(self) -> None:
        self._free.set()
        self._threads.shutdown()
        try:
            with self.holder.snapshot() as connection:
                assert verify.verify(connection).problems == ()
        finally:
            for outbox in (self.holder, *self.others):
                outbox.close()
            self.pipe.close()


@pytest.fixture
def crowd(config: MakeConfig) -> Iterator[Crowd]:
    made = Crowd(config)
    yield made
    made.close()


def test_one_commit_serves_all_that_wait(crowd: Crowd) -> None:
    """Three processes wait; the first that gets the lock commits for the others as well."""
    events = [note(n) for n in range(3)]
    crowd.hold()
    before = crowd.commits()
    calls = [crowd.call(n, event) for n, event in enumerate(events)]
    crowd.release()
    for call in calls:
        call.result(30)
    assert sorted(crowd.stored()[-3:]) == sorted(event.event_id for event in events)
    assert crowd.commits() - before == 1


def test_who_finds_the_lock_free_commits_what_is_offered(crowd: Crowd) -> None:
    """A call that comes at the right moment need not wait, and takes the others along."""
    crowd.hold()
    call = crowd.call(0, note("has met others before"))
    crowd.release()
    call.result(30)
    own, waiting = note("comes"), note("waits")
    assert crowd.holder.connections.file is not None
    other = Handover(crowd.path, None)
    other.use_file(crowd.holder.connections.file)
    other.offer(waiting)
    crowd.others[0].append(own)
    other.close()
    assert crowd.stored()[-2:] == [own.event_id, waiting.event_id]


def test_an_offer_that_was_taken_and_lost_costs_nothing(crowd: Crowd) -> None:
    """Who took it was killed: those who wait store their own events."""
    events = [note(n) for n in range(3)]
    crowd.hold()
    calls = [crowd.call(n, event) for n, event in enumerate(events)]
    assert len(crowd.offered()) == 3
    crowd.release()
    for call in calls:
        call.result(30)
    assert sorted(crowd.stored()[-3:]) == sorted(event.event_id for event in events)


def test_an_offer_that_is_made_again_is_stored_once(crowd: Crowd) -> None:
    """Whatever pipe it comes from, and however late."""
    event = note("once")
    crowd.hold()
    call = crowd.call(0, event)
    lines = crowd.offered()
    for line in lines * 3:
        crowd.pipe.send(line)
    crowd.release()
    call.result(30)
    crowd.hold()
    call = crowd.call(0, note("next"))
    for line in lines * 3:
        crowd.pipe.send(line)
    crowd.release()
    call.result(30)
    assert crowd.stored().count(event.event_id) == 1


def test_an_offer_that_is_not_whole_fails_nobody_else(crowd: Crowd) -> None:
    """Somebody offered an event without a type, which the table would refuse."""
    events = [note(n) for n in range(2)]
    crowd.hold()
    calls = [crowd.call(n, event) for n, event in enumerate(events)]
    lines = crowd.offered()
    spoilt = note("spoilt").event_id
    for line, event in zip(lines, events, strict=True):
        bad = line.replace(b'"test.noted"', b"null").replace(
            event.event_id.encode(), spoilt.encode()
        )
        crowd.pipe.send(bad)
        crowd.pipe.send(line)
    crowd.release()
    for call in calls:
        call.result(30)
    assert sorted(crowd.stored()[-2:]) == sorted(event.event_id for event in events)


def test_a_commit_that_fails_stores_nothing_for_anybody(crowd: Crowd) -> None:
    """Its own call fails; the others, whose events it had taken, store theirs themselves."""
    events = [note(str(n) * 3_000) for n in range(3)]
    crowd.hold()
    calls = [crowd.call(n, event) for n, event in enumerate(events)]
    held = crowd.others[0].connections.write_connection._connection
    assert held is not None
    held[1].execute("PRAGMA max_page_count = 1").close()  # it cannot grow any more
    crowd.release()
    with pytest.raises(OutboxError, match="full"):
        calls[0].result(30)
    for call in calls[1:]:
        call.result(30)
    stored = crowd.stored()
    assert {event.event_id for event in events[1:]} <= set(stored)
    assert events[0].event_id not in stored


def test_a_call_that_gives_up_takes_its_offer_back(crowd: Crowd) -> None:
    """Its caller was told that the event is not stored, and so it is not, later on either."""
    event = note("refused")
    crowd.others[0].connections.lock.patience = 0.3
    crowd.hold()
    call = crowd.call(0, event)
    with pytest.raises(OutboxError, match="was not released"):
        call.result(30)
    assert crowd.offered() == []
    crowd.release()
    crowd.others[1].append(note("next"))
    assert event.event_id not in crowd.stored()


def test_several_events_of_a_call_are_stored_all_or_none(crowd: Crowd) -> None:
    """So they are not offered one by one."""
    events = [note(n) for n in range(3)]
    crowd.hold()
    call = crowd.call(0, *events)
    assert crowd.offered() == []
    crowd.release()
    call.result(30)
    assert crowd.stored()[-3:] == [event.event_id for event in events]


def test_nobody_offers_what_need_not_be_flushed(config: MakeConfig) -> None:
    """With durability "process", one commit takes less time than it takes to hand it over."""
    crowd = Crowd(config, durability="process")
    crowd.hold()
    call = crowd.call(0, note("x"))
    assert not paths.handover(crowd.path).exists()
    crowd.release()
    call.result(30)
    crowd.close()


def test_no_pipe_is_left(config: MakeConfig) -> None:
    """Once all have closed the outbox: not every program that copies files expects a pipe."""
    crowd = Crowd(config)
    crowd.hold()
    call = crowd.call(0, note("x"))
    assert paths.handover(crowd.path).exists()
    crowd.release()
    call.result(30)
    crowd.close()
    assert not paths.handover(crowd.path).exists()


def test_without_a_pipe_each_commits_its_own(crowd: Crowd) -> None:
    """A file in its place, or a file system that has none, makes it slower and nothing else."""
    events = [note(n) for n in range(3)]
    paths.handover(crowd.path).write_text("mine")
    crowd.hold()
    before = crowd.commits()
    calls = [crowd.call(n, event) for n, event in enumerate(events)]
    crowd.release()
    for call in calls:
        call.result(30)
    assert crowd.commits() - before == 3
    assert paths.handover(crowd.path).read_text() == "mine"
    paths.handover(crowd.path).unlink()


def test_an_interrupted_call_leaves_the_others_of_its_process(crowd: Crowd) -> None:
    """Ctrl-C hits a call that waits; another thread's event, offered with it, is stored once."""
    first, second = note("interrupted"), note("stays")
    crowd.hold()
    outbox = crowd.others[0]
    behind: list[Future[None]] = []

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    def join() -> None:
        behind.append(crowd.call(0, second))
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, strike)
    try:
        timer = threading.Timer(0.2, join)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            outbox.append(first)
    finally:
        signal.signal(signal.SIGALRM, before)
    timer.join()
    crowd.release()
    behind[0].result(30)
    stored = crowd.stored()
    assert stored.count(second.event_id) == 1
    assert stored.count(first.event_id) <= 1


_LOGS = """
import sys
from tracker import APIConfig
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
outbox = Outbox(APIConfig(api_key="k", outbox_path=sys.argv[1]), check_owner=False)
print("open", flush=True)
sys.stdin.readline()
outbox.append(make_event("test.noted", {"n": "slow"}))
"""


@pytest.mark.skipif(slow_disk.CANNOT is not None, reason=slow_disk.CANNOT or "")
def test_nobody_sees_a_commit_before_it_is_flushed(config: MakeConfig, tmp_path: Path) -> None:
    """What SQLite does, and what a call relies on that sees its event stored by another."""
    crowd = Crowd(config, 1)
    milliseconds = 400
    process = subprocess.Popen(
        [sys.executable, "-c", _LOGS, str(crowd.path)],
        env={**os.environ, **slow_disk.slow_disk(tmp_path, milliseconds)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    commits, rows = crowd.commits(), len(crowd.stored())
    process.stdin.write("go\n")
    process.stdin.flush()
    _wait_until(lambda: crowd.commits() > commits)
    written = monotonic()
    _wait_until(lambda: len(crowd.stored()) > rows)
    assert monotonic() - written > milliseconds / 2_000
    process.communicate()
    crowd.close()


def _wait_until(true: Callable[[], bool]) -> None:
    end = monotonic() + 30
    while not true():
        assert monotonic() < end
        sleep(0.005)
