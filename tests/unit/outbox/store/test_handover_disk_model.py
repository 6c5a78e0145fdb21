"""A model of what the handover relies on: log, flush, index, processes that die, and power cuts.

It holds the argument, not the code: that `test_handover_model` does, and the power cuts of
`tests/faults` the disk.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

_PROCESSES = 3


class Process:
    """One process; `step` says how far its call has come."""

    def __init__(self) -> None:
        self.connected = False
        self.begin(None)

    def begin(self, event: int | None) -> None:
        self.event = event
        self.step = "idle" if event is None else "waiting"
        self.batch: list[int] = []


class DiskMachine(RuleBasedStateMachine):
    """Several processes on one log; each step of a commit is a rule, so that all may come between.

    `file` and the first `flushed` commits of `log` are on the disk for certain; readers see `file`
    and the first `shown` commits. The next writer overwrites the commits after those.
    """

    flushes_on_opening = True
    flushes_before_showing = True
    looks_before_storing = True

    def __init__(self) -> None:
        super().__init__()
        self.file: list[int] = []
        self.log: list[list[int]] = []
        self.flushed = self.shown = 0
        self.pipe: list[int] = []
        self.locked_by: Process | None = None
        self.processes = [Process() for _ in range(_PROCESSES)]
        self.acknowledged: list[int] = []
        self.sent: dict[int, int] = {}
        self.numbers = itertools.count()

    def _seen(self) -> list[int]:
        return [*self.file, *itertools.chain(*self.log[: self.shown])]

    def _kept(self) -> list[int]:
        return [*self.file, *itertools.chain(*self.log[: self.flushed])]

    @rule(which=st.integers(0, _PROCESSES - 1), steps=st.integers(1, 6), fails=st.booleans())
    def go_on(self, which: int, steps: int, fails: bool) -> None:
        """Let a process take so many steps; the last, if it is a flush, may fail."""
        process = self.processes[which]
        for left in reversed(range(steps)):
            if not process.connected:
                self._open(process, fails and not left)
            elif process.step == "idle":
                self._call(process)
            elif process.step == "waiting":
                self._take_lock(process)
            elif process.step == "locked":
                self._write(process)
            elif process.step == "written" and self.flushes_before_showing:
                self._flush(process, fails and not left)
            else:
                self._show(process)

    def _open(self, process: Process, fails: bool) -> None:
        """Connect; who is alone recovers the log, and sees whatever the dead have written."""
        if not any(each.connected for each in self.processes):
            self.shown = len(self.log)
        if self.flushes_on_opening:
            if fails:
                return
            self.flushed = max(self.flushed, self.shown)
        process.connected = True

    def _call(self, process: Process) -> None:
        event = next(self.numbers)
        process.begin(event)
        if self.locked_by is not None:
            self.pipe.append(event)

    def _take_lock(self, process: Process) -> None:
        if self.locked_by is not None or process.event is None:
            return
        if process.event in self._seen() and self.looks_before_storing:
            self._acknowledge(process)
            return
        self.locked_by, process.step = process, "locked"
        others, self.pipe = self.pipe, []
        fresh = dict.fromkeys([process.event, *others])
        process.batch = [each for each in fresh if each not in self._seen()] or [process.event]

    def _write(self, process: Process) -> None:
        del self.log[self.shown :]
        self.flushed = min(self.flushed, self.shown)
        self.log.append(process.batch)
        process.step = "written"

    def _flush(self, process: Process, fails: bool) -> None:
        if fails:  # nobody knows what is on the disk, and nobody is shown it
            self._let_go(process)
        else:
            self.flushed = len(self.log)
            process.step = "flushed"

    def _show(self, process: Process) -> None:
        self.shown = len(self.log)
        self._acknowledge(process)

    def _acknowledge(self, process: Process) -> None:
        if process.event is not None:
            self.acknowledged.append(process.event)
        self._let_go(process)

    def _let_go(self, process: Process) -> None:
        process.begin(None)
        if self.locked_by is process:
            self.locked_by = None

    @rule(which=st.integers(0, _PROCESSES - 1))
    def kill(self, which: int) -> None:
        process = self.processes[which]
        process.connected = False
        self._let_go(process)
        if not any(each.connected for each in self.processes):
            self.pipe = []

    @rule(which=st.integers(0, _PROCESSES - 1))
    def restart(self, which: int) -> None:
        """Kill all; then one process opens the log."""
        self._kill_all()
        self._open(self.processes[which], fails=False)

    def _kill_all(self) -> None:
        for which in range(_PROCESSES):
            self.kill(which)

    @rule(count=st.integers(0, 3))
    def lose_offers(self, count: int) -> None:
        """Whoever took them died, or the pipe was removed."""
        del self.pipe[:count]

    @rule()
    def checkpoint(self) -> None:
        """Flush the log, write it back, flush the file, and start the log over."""
        if self.locked_by is None and any(each.connected for each in self.processes):
            self.file = self._seen()
            self.log, self.flushed, self.shown = [], 0, 0

    @rule()
    def send(self) -> None:
        """Tell a server which event has which number."""
        if any(each.connected for each in self.processes):
            self.sent.update(enumerate(self._seen()))

    @rule(more=st.integers(0, 3))
    def cut_power(self, more: int) -> None:
        """Keep what was flushed, and perhaps more commits, in their order: checksums build up."""
        self._kill_all()
        del self.log[self.flushed + more :]
        self.flushed = self.shown = len(self.log)

    @invariant()
    def what_was_said_is_true_after_any_power_cut(self) -> None:
        kept = self._kept()
        assert set(self.acknowledged) <= set(kept)
        assert len(kept) == len(set(kept)), "stored twice"
        assert all(kept[number : number + 1] == [event] for number, event in self.sent.items())

    @invariant()
    def nothing_is_seen_twice(self) -> None:
        assert len(self._seen()) == len(set(self._seen()))


class ShowsFirst(DiskMachine):
    """As with SQLite's ``synchronous=NORMAL``."""

    flushes_before_showing = False


class OpensUnflushed(DiskMachine):
    """Believes what it finds in a log that a killed process has left."""

    flushes_on_opening = False


class StoresUnseen(DiskMachine):
    """Stores its event whatever became of the offer."""

    looks_before_storing = False


_ENOUGH = settings(max_examples=200, stateful_step_count=30, deadline=None, database=None)
_UNTIL_ONE = settings(
    _ENOUGH, max_examples=5_000, phases=[Phase.generate], report_multiple_bugs=False
)


def test_no_power_cut_or_death_takes_back_what_was_said() -> None:
    """Nothing acknowledged is lost, nothing sent gets another number, nothing is stored twice."""
    run_state_machine_as_test(DiskMachine, settings=_ENOUGH)


@pytest.mark.parametrize("machine", [ShowsFirst, OpensUnflushed, StoresUnseen])
def test_the_model_finds_what_would_break_that(machine: type[DiskMachine]) -> None:
    """Each thing that the handover relies on is needed."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=_UNTIL_ONE)
