"""Whatever interrupts a call, it alone fails: `GroupCommit` with a plain list for a disk."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import list_backend
from tests.support.list_backend import Disk, ListBackend
from tests.support.raising import Struck, calling_at, in_a_thread, raising_at
from tracker.clock import monotonic
from tracker.errors import OutboxError, TrackerClosedError
from tracker.events import make_event
from tracker.outbox.store import group_commit, leadership
from tracker.outbox.store.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from tracker.events import Event
    from tracker.outbox.store.group_commit import Attempt

OWN_FILES = (str(group_commit.__file__), str(leadership.__file__))
BOTH = (*OWN_FILES, str(list_backend.__file__))


def note(n: object) -> Event:
    return make_event("test.noted", {"n": n})


class Story:
    """Calls of one kind on a `GroupCommit`, and what they returned."""

    def __init__(self, call: str) -> None:
        self.disk = Disk()
        self.writer = GroupCommit(ListBackend(self.disk))
        self.returned: list[str] = []
        self._call = call

    def one(self) -> None:
        """Make one call, and note the ids of what it says is stored."""
        event = note("x")
        if self._call == "append":
            self.writer.append(event)
        elif self._call == "append_all":
            self.writer.append_all([event])
        elif self._call == "run":
            self.writer.run(lambda transaction: transaction.write(event))  # type: ignore[attr-defined]
        else:
            assert self.writer.alone(lambda: True)
            return
        self.returned.append(event.event_id)

    def check(self) -> None:
        """See that this thread and another go on at once, and that what returned is stored."""
        self.one()
        other = threading.Thread(target=self.one, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive(), "another thread hangs"
        last = note("last")
        self.writer.append(last)
        assert self.writer.waiting_since() is None, "a call that has ended counts as waiting"
        stored = self.disk.ids()
        assert {*self.returned, last.event_id} <= set(stored)
        assert len(stored) == len(set(stored))
        assert self.disk.locked_by is None or self.disk.locked_by.retired


CALLS = ["append", "append_all", "run", "alone"]


def length(call: str) -> int:
    """Return how many lines a call runs."""
    story = Story(call)
    with raising_at(BOTH) as count:
        story.one()
    assert count[0] > 20, "the lines of a call"
    return count[0]


@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_struck_at_any_line_fails_alone(call: str) -> None:
    """It raises what struck it, or returns and is stored; the next calls work."""
    for line in range(1, length(call) + 1):
        story = Story(call)
        with raising_at(BOTH, line), pytest.raises(Struck):
            story.one()
        story.check()


@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_struck_twice_at_any_lines_fails_alone(call: str) -> None:
    """The second strike comes at every line of what the first one set off."""
    for first in range(1, length(call) + 1):
        for second in range(first + 1, first + 200):
            story = Story(call)
            with raising_at(BOTH, first, second) as count, contextlib.suppress(Struck):
                story.one()
            story.check()
            if count[0] < second:
                break


@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_struck_at_every_line_from_one_on_fails_alone(call: str) -> None:
    """A time limit that strikes again and again lets no cleanup run at all."""
    for first in range(1, length(call) + 1):
        story = Story(call)
        with raising_at(BOTH, *range(first, first + 1000)), contextlib.suppress(Struck):
            story.one()
        story.check()


@pytest.mark.parametrize("second_call", CALLS)
@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_inside_another_at_any_line_is_stored_when_it_returns(
    call: str, second_call: str
) -> None:
    """As a signal handler makes it. The outer call is stored too, and both once."""
    for line in range(1, length(call) + 1):
        story = Story(call)
        inner: list[bool] = []

        def handler(story: Story = story, inner: list[bool] = inner) -> None:
            before = len(story.returned)
            outer, story._call = story._call, second_call
            try:
                story.one()
                inner.append(set(story.returned[before:]) <= set(story.disk.ids()))
            except OutboxError:
                assert outer == "alone"  # which keeps everybody out, this thread included
                inner.append(True)
            except AssertionError:
                assert (outer, second_call) == ("alone", "alone")
                inner.append(True)
            finally:
                story._call = outer

        with calling_at(BOTH, line, handler):
            story.one()
        assert inner == [True], line
        story.check()


@pytest.mark.parametrize("way", ["append", "append_all", "run"])
@in_a_thread
def test_another_call_may_come_between_any_two_instructions(way: str) -> None:
    """Of a thread or a signal handler, which do not wait for the end of a line."""
    number, reached = 0, True

    def log(writer: GroupCommit[ListBackend], event: Event) -> None:
        if way == "append":
            writer.append(event)
        elif way == "append_all":
            writer.append_all([event])
        else:
            writer.run(lambda transaction: transaction.append_missing(event))

    while reached:
        number += 1
        writer = GroupCommit(ListBackend(Disk()))
        own, others = note("own"), note("another's")
        reached = False

        def come_between(writer: GroupCommit[ListBackend] = writer, event: Event = others) -> None:
            nonlocal reached
            reached = True
            writer.append_all([event])

        with at_instruction(number, come_between):
            log(writer, own)
        expected = {own.event_id, others.event_id} if reached else {own.event_id}
        assert set(writer.backend.disk.ids()) == expected, number
    assert number > 100, "the instructions of a call"


@contextlib.contextmanager
def at_instruction(number: int, function: Callable[[], None]) -> Iterator[None]:
    """Call `function` before the instruction of that number which this thread runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(OWN_FILES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == number:
                function()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 heeds it only if it is set by now
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_nothing_for_the_garbage_collector(call: str) -> None:
    """What it keeps of its caller, whose variables may be large, is let go of at its end."""
    story = Story(call)
    story.one()

    def garbage() -> int:
        gc.collect()
        story.one()
        return gc.collect()

    gc.disable()
    try:
        # A thread that an earlier test has left may drop something at the same moment.
        assert 0 in (garbage() for _ in range(5))
    finally:
        gc.enable()


@pytest.mark.parametrize("call", CALLS)
def test_calls_that_end_well_hand_their_backend_on(call: str) -> None:
    """To the same thread and to others: opening another one for each call takes long."""
    story = Story(call)
    backend = story.writer.backend
    story.one()
    assert story.writer.waiting_since() is None
    story.check()
    assert story.writer.backend is backend


def test_how_long_the_first_call_has_waited_is_known() -> None:
    """Until it is stored, whoever comes after it; then nobody waits."""
    begun, may_go_on = threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "begun":
            begun.set()
            assert may_go_on.wait(10)

    writer = GroupCommit(ListBackend(Disk(), step))
    assert writer.waiting_since() is None
    before = monotonic()
    calls = [threading.Thread(target=writer.append, args=[note(n)], daemon=True) for n in range(2)]
    calls[0].start()
    assert begun.wait(10)
    after = monotonic()
    calls[1].start()
    calls[1].join(0.05)
    since = writer.waiting_since()
    assert since is not None
    assert before <= since <= after
    may_go_on.set()
    for call in calls:
        call.join(10)
    assert writer.waiting_since() is None


def steps(name: str) -> tuple[GroupCommit[ListBackend], threading.Event, threading.Event]:
    """Return a writer whose first call stops at a step, and the events that say so and end it."""
    reached, may_go_on = threading.Event(), threading.Event()

    def step(reached_step: str) -> None:
        if reached_step == name and not reached.is_set():
            reached.set()
            assert may_go_on.wait(10)

    return GroupCommit(ListBackend(Disk(), step)), reached, may_go_on


def in_threads(*calls: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_a_call_hands_its_backend_on_to_those_that_wait() -> None:
    """However many they are: opening another one for each would take long under load."""
    writer, begun, may_go_on = steps("begun")
    backend = writer.backend
    first = in_threads(lambda: writer.append(note(0)))
    assert begun.wait(10)
    others = in_threads(
        lambda: writer.append(note(1)),
        lambda: writer.run(lambda _: None),
        lambda: writer.append(note(2)),
    )
    for thread in others:
        thread.join(0.02)
    may_go_on.set()
    for thread in first + others:
        thread.join(10)
        assert not thread.is_alive()
    assert len(backend.disk.stored) == 3
    assert writer.backend is backend


def test_a_call_that_nobody_is_in_the_way_of_does_not_wait() -> None:
    """Thousands of them take no time but that of the disk."""
    writer = GroupCommit(ListBackend(Disk()))
    began = monotonic()
    for number in range(100):
        writer.append_all([note(number)])
        writer.run(lambda _: None)
    assert monotonic() - began < 0.5


def test_a_call_that_waited_goes_on_as_soon_as_it_may() -> None:
    """It is woken: it does not find out at its next look, which may be a quarter second away."""
    took = sorted(seconds_until_a_waiting_call_returns() for _ in range(9))
    assert took[4] < 0.015, took


def seconds_until_a_waiting_call_returns() -> float:
    """Return how long it takes from when nobody is in its way any more."""
    writer, begun, may_go_on = steps("begun")
    leading = in_threads(lambda: writer.append(note(0)))
    assert begun.wait(10)
    waiting = in_threads(lambda: writer.run(lambda _: None))
    waiting[0].join(0.12)  # by now it looks every 0.08 s
    began = monotonic()
    may_go_on.set()
    for thread in leading + waiting:
        thread.join(10)
    return monotonic() - began


class Refusing(ListBackend):
    """Refuses an event that it has stored already, as SQLite does."""

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        super()._begin()
        if {event.event_id for event in events} & set(self.disk.ids()):
            raise KeyError("UNIQUE constraint failed")
        super().append_all(events, attempt)

    def retire(self, *, suspended: bool, sound: bool) -> Refusing:
        super().retire(suspended=suspended, sound=sound)
        return Refusing(self.disk)


def test_events_that_cannot_be_stored_are_refused_at_once() -> None:
    """With the reason, and without harm to those that come after them."""
    writer = GroupCommit(Refusing(Disk()))
    stored, other = note(1), note(2)
    writer.append_all([stored])
    with pytest.raises(OutboxError, match="UNIQUE constraint failed"):
        writer.append_all([stored])
    writer.append_all([other])
    assert writer.backend.disk.stored == [stored, other]


@in_a_thread
def test_during_a_fork_only_the_forking_thread_writes() -> None:
    """What it logs between its hooks is stored, and others go on when the fork is done."""
    writer = GroupCommit(ListBackend(Disk()))
    own, others = note("own"), note("another's")

    def fork(forking: FrameType) -> list[threading.Thread]:
        assert writer.hold(forking)
        writer.append(own)
        writer.run(lambda _: None)
        threads = in_threads(lambda: writer.append(others))
        threads[0].join(0.1)
        assert writer.backend.disk.stored == [own]
        assert writer.is_idle(), "a child of this moment may use what it inherits"
        writer.resume()
        return threads

    [thread] = fork(sys._getframe())
    thread.join(10)
    assert writer.backend.disk.stored == [own, others]


def test_a_fork_inside_a_call_does_not_store_its_event_twice() -> None:
    """As a signal handler makes it: the event is stored before the fork, and not by the child."""
    parents, childs, event = Disk(), Disk(), note(1)
    signals = ["SIGUSR1"]

    def fork(forking: FrameType) -> None:
        assert writer.hold(forking)
        writer.restart_in_child(ListBackend(childs))

    def step(name: str) -> None:
        if name == "written" and signals and signals.pop():
            fork(sys._getframe())

    writer = GroupCommit(ListBackend(parents, step))
    writer.append_all([event])
    assert (parents.stored, childs.stored) == ([event], [])


def test_who_waits_for_work_that_keeps_everybody_out_is_known_to_wait() -> None:
    """A rewrite of the file is no trouble by itself, but a call that has to wait for it long is."""
    writer = GroupCommit(ListBackend(Disk()))
    entered, may_end = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert may_end.wait(10)

    rewriting = in_threads(lambda: writer.alone(work))
    assert entered.wait(10)
    assert writer.waiting_since() is None
    before = monotonic()
    waiting = in_threads(lambda: writer.append(note(1)))
    waiting[0].join(0.05)
    since = writer.waiting_since()
    assert since is not None
    assert before <= since <= monotonic()
    may_end.set()
    for thread in rewriting + waiting:
        thread.join(10)
    assert writer.waiting_since() is None


def test_a_closed_writer_says_so() -> None:
    """Later calls of every kind raise TrackerClosedError."""
    story = Story("run")
    story.writer.close(lambda: None)
    for call in ("append_all", "run"):
        story._call = call
        with pytest.raises(TrackerClosedError):
            story.one()
