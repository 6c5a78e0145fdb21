"""A model of `GroupCommit`: threads that go on line by line, and exceptions, in any order."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.support import list_backend
from tests.support.list_backend import Disk, ListBackend
from tests.support.raising import Struck, at_each_line
from tracker.events import make_event
from tracker.outbox.store import group_commit, leadership
from tracker.outbox.store.group_commit import GroupCommit

_FILES = tuple(str(each.__file__) for each in (group_commit, leadership, list_backend))
_MOST_THREADS = 4
_BLOCKED_SECONDS = 0.005
"""How long a step may take before the thread counts as one that waits for another."""


class Caller:
    """A thread that makes one call, and stops before each line of it until it may go on."""

    def __init__(self, writer: GroupCommit[ListBackend], kind: str) -> None:
        self._event: Any = make_event("test.noted", {"n": "x"})
        self._writer, self._kind = writer, kind
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._free = False
        self.returned: str | None = None
        self.raised: BaseException | None = None
        self.struck = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._await_stop()

    def order(self, what: str) -> None:
        """Have it run to the next line, be struck there, or go on to its end."""
        self._orders.put(what)
        self._await_stop()

    def _await_stop(self) -> None:
        try:
            self._stops.get(timeout=_BLOCKED_SECONDS)
        except queue.Empty:
            return  # it waits for another one, or has ended

    def _at_line(self) -> None:
        if self._free:
            return
        self._stops.put(None)
        order = self._orders.get()
        self._free = order == "free"
        if order == "strike":
            self.struck = True
            raise Struck

    def _run(self) -> None:
        try:
            with at_each_line(_FILES, self._at_line):
                self._call()
        except BaseException as error:  # noqa: BLE001 - judged by the machine
            self.raised = error
        self.over.set()
        self._stops.put(None)
        while self._orders.get() != "end":  # a thread lives on after a call that was interrupted
            pass

    def _call(self) -> None:
        if self._kind == "append":
            self._writer.append(self._event)
        elif self._kind == "append_all":
            self._writer.append_all([self._event])
        else:
            self._writer.run(lambda transaction: transaction.write(self._event))  # type: ignore[attr-defined]  # the list's
        self.returned = self._event.event_id


class GroupCommitMachine(RuleBasedStateMachine):
    """Up to four calls at once; any of them may be struck at any line, more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.writer = GroupCommit(ListBackend(self.disk))
        self.callers: list[Caller] = []

    @property
    def _living(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.over.is_set()]

    @rule(kind=st.sampled_from(["append", "append_all", "run"]))
    def call(self, kind: str) -> None:
        if len(self._living) < _MOST_THREADS:
            self.callers.append(Caller(self.writer, kind))

    @rule(which=st.integers(0, _MOST_THREADS - 1), lines=st.integers(1, 40))
    def go_on(self, which: int, lines: int) -> None:
        self._order(which, "go", times=lines)

    @rule(which=st.integers(0, _MOST_THREADS - 1), lines=st.lists(st.integers(0, 12), max_size=3))
    def strike(self, which: int, lines: list[int]) -> None:
        """Strike a call, and again so many lines further on, in what the first strike set off."""
        for more in (0, *lines):
            self._order(which, "go", times=more)
            self._order(which, "strike")

    @rule(which=st.integers(0, _MOST_THREADS - 1), lines=st.integers(0, 12))
    def strike_after_commit(self, which: int, lines: int) -> None:
        """Strike a call when something has just been stored, before anybody is told of it."""
        stored = len(self.disk.stored)
        for _ in range(150):
            if len(self.disk.stored) == stored:
                self._order(which, "go")
        self._order(which, "go", times=lines)
        self._order(which, "strike")

    def _order(self, which: int, what: str, times: int = 1) -> None:
        # What hypothesis draws must not hang on which threads have ended by now.
        newest = self.callers[-_MOST_THREADS:]
        for _ in range(times if newest else 0):
            caller = newest[which % len(newest)]
            if not caller.over.is_set():
                caller.order(what)

    @invariant()
    def what_returned_is_stored_once(self) -> None:
        stored = self.disk.ids()
        assert {caller.returned for caller in self.callers} - {None} <= set(stored)
        assert len(stored) == len(set(stored))

    def teardown(self) -> None:
        """Let all go on: every call ends, those alone raise that were struck, and others work."""
        try:
            for caller in self.callers:
                caller.order("free")
            for caller in self.callers:
                assert caller.over.wait(20), "a call hangs"
                assert (caller.returned is None) == (caller.raised is not None)
                if caller.raised is not None:
                    assert isinstance(caller.raised, Struck), repr(caller.raised)
                    assert caller.struck
            event = make_event("test.noted", {"n": "last"})
            last = threading.Thread(target=self.writer.append, args=(event,), daemon=True)
            last.start()
            last.join(20)
            assert not last.is_alive(), "a later call hangs"
            assert event.event_id in self.disk.ids()
            self.what_returned_is_stored_once()
        finally:
            for caller in self.callers:
                caller.order("end")


def test_calls_that_are_struck_in_any_order() -> None:
    """None that returned is lost, none is stored twice, and nobody is held up."""
    run_state_machine_as_test(
        GroupCommitMachine,
        settings=settings(max_examples=25, stateful_step_count=25, deadline=None),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_calls_that_are_struck_in_any_order_long() -> None:
    """As above, for many more orders."""
    run_state_machine_as_test(
        GroupCommitMachine,
        settings=settings(max_examples=400, stateful_step_count=40, deadline=None),
    )
