"""Whatever interrupts a call, it alone fails: `GroupCommit` with a plain list for a disk."""

from __future__ import annotations

import contextlib
import gc
import threading
from typing import TYPE_CHECKING

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
    from tracker.events import Event

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
        stored = self.disk.ids()
        assert set(self.returned) <= set(stored)
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


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_nothing_for_the_garbage_collector(call: str) -> None:
    """What it keeps of its caller, whose variables may be large, is let go of at its end."""
    story = Story(call)
    story.one()
    gc.collect()
    gc.disable()
    try:
        story.one()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("call", CALLS)
def test_calls_that_end_well_hand_their_backend_on(call: str) -> None:
    """To the same thread and to others: opening another one for each call takes long."""
    story = Story(call)
    backend = story.writer.backend
    story.one()
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


def test_a_closed_writer_says_so() -> None:
    """Later calls of every kind raise TrackerClosedError."""
    story = Story("run")
    story.writer.close(lambda: None)
    for call in ("append_all", "run"):
        story._call = call
        with pytest.raises(TrackerClosedError):
            story.one()
