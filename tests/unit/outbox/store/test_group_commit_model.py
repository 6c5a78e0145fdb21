"""A model of `GroupCommit`: threads that go on line by line, and exceptions, in any order."""

from __future__ import annotations

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
from tests.support.raising import Struck
from tests.support.stepped import Caller
from tracker.events import make_event
from tracker.outbox.store import group_commit, leadership
from tracker.outbox.store.group_commit import GroupCommit

_FILES = tuple(str(each.__file__) for each in (group_commit, leadership, list_backend))
_MOST_THREADS = 4


def caller(writer: GroupCommit[ListBackend], kind: str) -> Caller:
    event: Any = make_event("test.noted", {"n": "x"})

    def call() -> str:
        if kind == "append":
            writer.append(event)
        elif kind == "append_all":
            writer.append_all([event])
        else:
            writer.run(lambda transaction: transaction.write(event))  # type: ignore[attr-defined]  # the list's
        event_id: str = event.event_id
        return event_id

    return Caller(call, _FILES)


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
            self.callers.append(caller(self.writer, kind))

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
        settings=settings(max_examples=200, stateful_step_count=40, deadline=None),
    )
