"""A model of processes that commit each other's events: each goes on line by line, or dies."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event

from tests.support.raising import Struck
from tests.support.stepped import Caller
from tracker import APIConfig
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.files import file_lock, lock_wait, paths, pipe
from tracker.outbox.files.pipe import Pipe
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import handover, write_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker.events import Event

pytestmark = [
    pytest.mark.skipif(not pipe.SUFFICES, reason="a pipe is too small for an event here"),
    # A file that was being opened when its call was struck: the interpreter closes it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_FILES = tuple(
    str(each.__file__) for each in (file_lock, lock_wait, pipe, handover, write_connection)
)
_PROCESSES = 3
_MOST_LINES = 90
"""About as many as a call runs that waits for another process."""


class Process:
    """What a process has: an outbox of its own on the shared file, and at most one call."""

    def __init__(self, config: APIConfig) -> None:
        self.outbox = Outbox(config)
        self.outbox.connections.lock.patience = 300  # for one that the test has stopped
        self._drivers: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        engine = self.outbox.connections.write_connection._engine
        event.listen(engine, "connect", lambda driver, _: self._drivers.add(driver))
        self.caller: Caller | None = None
        self.fails = False

    @property
    def is_calling(self) -> bool:
        return self.caller is not None and not self.caller.over.is_set()

    def call(self, logged: Event) -> None:
        def append() -> str:
            self.outbox.append(logged)
            return logged.event_id

        self.caller = Caller(append, _FILES)

    def fail(self) -> None:
        """Let the next statement fail, if the process is connected."""
        held = self.outbox.connections.write_connection._connection
        if held is not None:
            once = iter([1])
            # It may stand between closing the connection and forgetting it.
            with contextlib.suppress(sqlite3.ProgrammingError):
                held[1].set_progress_handler(lambda: next(once, 0), 1)
                self.fails = True

    def die(self) -> None:
        """Let go of what the kernel lets go of; the call never goes on.

        It may have stopped between opening or closing a connection and noting that.
        """
        self.outbox.connections.write_connection.retire(suspended=True)
        for driver in list(self._drivers):
            with contextlib.suppress(sqlite3.Error):  # it was closed
                driver.rollback()


class HandoverMachine(RuleBasedStateMachine):
    """Three processes on one outbox, an operator, and somebody who meddles with the pipe."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = contextlib.ExitStack()
        folder = Path(self._folder.enter_context(tempfile.TemporaryDirectory()))
        self.config = APIConfig(
            api_key="k", client_id="c", base_url="http://127.0.0.1:9", on_error="raise",
            outbox_path=folder / "outbox.sqlite3",
        )  # fmt: skip
        self.path = self.config.outbox_path
        self.operator = Outbox(self.config)
        self.processes = [Process(self.config) for _ in range(_PROCESSES)]
        for process in self.processes:
            process.outbox.append(make_event("test.noted", {"n": "first"}))  # connects it
        self.past: list[Process] = []
        self.returned: set[str] = set()
        self.lines: list[bytes] = []
        self.meddler = Pipe(paths.handover(self.path), like=self.path)
        self.meddler.send(b"hello")  # opens it

    @rule(which=st.integers(0, _PROCESSES - 1), lines=st.integers(1, _MOST_LINES))
    def go_on(self, which: int, lines: int) -> None:
        self._order(which, "go", lines)

    @rule(order=st.permutations(range(_PROCESSES)), times=st.integers(1, 3))
    def go_on_in_turns(self, order: list[int], times: int) -> None:
        for _ in range(times):
            for which in order:
                self._order(which, "go", _MOST_LINES)

    @rule(order=st.permutations(range(_PROCESSES)), lines=st.integers(0, 40))
    def queue_up(self, order: list[int], lines: int) -> None:
        """Let one process take the lock, and the others wait behind it; then it goes on."""
        first, *others = order
        for _ in range(_MOST_LINES):
            if self._is_free():
                self._order(first, "go", 1)
        for which in others:
            self._order(which, "go", _MOST_LINES)
        self._order(first, "go", lines)

    @rule(which=st.integers(0, _PROCESSES - 1), lines=st.integers(0, _MOST_LINES))
    def strike(self, which: int, lines: int) -> None:
        self._order(which, "go", lines)
        self._order(which, "strike", 1)

    @rule(which=st.integers(0, _PROCESSES - 1), lines=st.integers(0, _MOST_LINES))
    def kill(self, which: int, lines: int) -> None:
        """Kill a process in the midst of its call, and start another."""
        self._order(which, "go", lines)
        process = self.processes[which]
        if process.is_calling:
            process.die()
            self.past.append(process)
            self.processes[which] = Process(self.config)

    @rule(which=st.integers(0, _PROCESSES - 1))
    def fail(self, which: int) -> None:
        """Let the next statement of a process fail."""
        self.processes[which].fail()

    @rule()
    def take_and_die(self) -> None:
        """Take what is offered, like a process that is killed before it commits."""
        self.lines += self.meddler.take()

    @rule(which=st.integers(0, 9))
    def offer_again(self, which: int) -> None:
        """Offer what was offered before, whatever became of it."""
        if self.lines:  # no precondition: what hypothesis draws must not hang on it
            self.meddler.send(self.lines[which % len(self.lines)])

    @rule(text=st.sampled_from([b"[]", b"{}", b"[[[", b'["x",1,2]', b"\xff", b"", b"3000"]))
    def offer_nonsense(self, text: bytes) -> None:
        self.meddler.send(text)

    @rule()
    def remove_pipe(self) -> None:
        paths.handover(self.path).unlink(missing_ok=True)

    @rule()
    def checkpoint(self) -> None:
        """Write the log back and let the next commit start it over."""
        if self._is_free():
            self.operator.empty_log()

    def _is_free(self) -> bool:
        return not file_lock.is_held(paths.write_lock(self.path))

    def _order(self, which: int, what: str, times: int) -> None:
        """Order a process's call so often, until it waits or ends; begin one if it is in none."""
        process = self.processes[which]
        if not process.is_calling:
            self._judge(process)
            process.call(make_event("test.noted", {"n": "x"}))
        self._tidy()
        for _ in range(times):
            if process.caller is None or not process.is_calling or not process.caller.order(what):
                break

    def _tidy(self) -> None:
        """Do what the sync threads do: free what calls that were struck have left held."""
        for process in self.processes:
            if not process.is_calling:
                process.outbox.connections.writer.retire_ended_call()

    def _judge(self, process: Process) -> None:
        """Note what a call returned, or see that it raised what hit it."""
        caller = process.caller
        if caller is None:
            return
        if caller.returned is not None:
            self.returned.add(caller.returned)
        elif isinstance(caller.raised, OutboxError):
            assert process.fails, repr(caller.raised)
            process.fails = False
        else:
            assert isinstance(caller.raised, Struck), repr(caller.raised)
        process.caller = None

    def _stored(self) -> list[str]:
        with self.operator.reading() as connection:
            return [
                row[0]
                for row in connection.exec_driver_sql("SELECT event_id FROM events ORDER BY seq")
            ]

    @invariant()
    def what_returned_is_stored_once(self) -> None:
        stored = self._stored()
        returned = {process.caller.returned for process in self.processes if process.caller}
        assert (returned | self.returned) - {None} <= set(stored)
        assert len(stored) == len(set(stored))

    def teardown(self) -> None:
        """Let those that live go on: their calls end, and the chain holds."""
        callers = [each.caller for each in (*self.processes, *self.past) if each.caller]
        calling = [each for each in self.processes if each.caller]
        try:
            for process in calling:
                assert process.caller is not None
                process.caller.order("free")
            for process in calling:
                assert process.caller is not None
                for _ in range(200):
                    self._tidy()
                    if process.caller.over.wait(0.1):
                        break
                assert not process.is_calling, "a call hangs"
                self._judge(process)
            self._tidy()
            for process in self.processes:
                with contextlib.suppress(*[OutboxError] * process.fails):
                    process.outbox.append(make_event("test.noted", {"n": "last"}))
            self.what_returned_is_stored_once()
            with self.operator.snapshot() as connection:
                assert verify.verify(connection).problems == ()
        finally:
            for caller in callers:
                if not caller.over.is_set():
                    caller.order("free")
            for caller in callers:
                caller.over.wait(20)
                caller.order("end")
            for process in (*self.processes, *self.past):
                process.outbox.close()
            self.operator.close()
            self.meddler.close()
            self._folder.close()
            gc.collect()  # its warnings belong here


@pytest.fixture(autouse=True)
def warnings_belong_here() -> Iterator[None]:
    """Have the interpreter close what struck calls left open, and not during another test.

    After the last machine is gone: as long as it is there, it keeps what the calls raised.
    """
    yield
    gc.collect()


def test_processes_that_commit_each_others_events() -> None:
    """None that returned is lost, none is stored twice, and no call raises but what hit it."""
    run_state_machine_as_test(
        HandoverMachine,
        settings=settings(max_examples=15, stateful_step_count=30, deadline=None),
    )


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_processes_that_commit_each_others_events_long() -> None:
    """As above, for many more orders."""
    run_state_machine_as_test(
        HandoverMachine,
        settings=settings(max_examples=40, stateful_step_count=50, deadline=None),
    )
