"""`Leadership`: one leader at a time, whose lead is over when the call is that leads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from tracker.frames import get_ident, is_executing

if TYPE_CHECKING:
    from types import FrameType

B = TypeVar("B")


class Lead(Generic[B]):
    """One call's turn to lead. It is a fact about a call, not a lock: nobody has to release it.

    Attributes:
        number: The lead with the highest number is the one in force.
        frame: The leading call; None once it has released the lead.
        thread: The thread of the operating system that the call runs in.
        backend: What it works with. It may still be that of the lead before, and in any state, as
            long as `dirty`.
        attempt: What `backend` may have committed without anybody having been told.
        dirty: The lead before was not released: its call is over, or suspended below this one.
        suspended: A call that has been superseded may go on and find `backend`.
        firm: A call that interrupts this one must not take over.
        instruction: Where `frame` stands as long as this lead lasts; None: as long as it runs.
        held: The call for which the lead before was held, to be held again after this one.
        since: When it began what it is at, on the monotonic clock.
    """

    __slots__ = (
        "attempt", "backend", "dirty", "firm", "frame", "held", "instruction", "number",
        "released", "since", "suspended", "thread",
    )  # fmt: skip

    def __init__(self, number: int, frame: FrameType | None, before: Lead[B] | None, backend: B):
        self.number = number
        self.frame = frame
        self.thread = get_ident()
        self.released = frame is None
        self.backend = backend
        self.firm = False
        self.since: float | None = None
        self.instruction: int | None = None
        self.held: FrameType | None = None
        if before is None or before.released:
            self.attempt: object | None = None
            self.dirty = self.suspended = False
        else:
            self.attempt = before.attempt
            self.dirty = True
            self.suspended = before.suspended or before.is_mine()
            if before.instruction is not None and before.is_mine() and not before.is_over():
                self.held = before.frame

    def hold_for(self, frame: FrameType) -> None:
        """Let the lead last beyond this call, for what the call of `frame` is doing now."""
        self.held = None
        self.since = None
        self.frame = frame
        self.instruction = frame.f_lasti
        self.firm = False

    def release(self) -> None:
        """Let whoever comes next lead, with a backend that is at rest."""
        self.released = True
        self.frame = None  # which holds this lead, and so would be freed by the collector only

    def is_mine(self) -> bool:
        """Return True if it is of this thread, which so is not executing it: it is suspended."""
        return self.thread == get_ident()

    def is_over(self) -> bool:
        """Return True if it was released, or its call is over or has gone on."""
        frame = self.frame
        if self.released or frame is None or not is_executing(frame):
            return True
        if self.instruction is not None:
            return frame.f_lasti != self.instruction
        return self.thread not in sys._current_frames()

    def is_below(self) -> bool:
        """Return True if this call runs inside the leading one, as a signal handler does."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame is self.frame:
                return True
            frame = frame.f_back
        return False


class Leadership(Generic[B]):
    """Says who leads. Taking over is one atomic step, and every other step may be the last.

    The leads under way are numbered, and the highest leads. Who wants to lead claims the next
    number, by ``dict.setdefault``. So an exception between any two lines leaves either no claim, or
    one of a call that is over, which the next call passes over; and a call that was superseded
    learns it by one look at the numbers.
    """

    def __init__(self, backend: B) -> None:
        self._leads: dict[int, Lead[B]] = {0: Lead(0, None, None, backend)}

    def newest(self) -> Lead[B]:
        """Return the lead in force, which may be over."""
        while True:
            lead = self._leads.get(max(self._leads))
            if lead is not None:
                return lead

    def is_in_force(self, lead: Lead[B]) -> bool:
        """Return False if somebody has taken over."""
        return max(self._leads) == lead.number

    def take(self, frame: FrameType, *, look: bool = True) -> Lead[B] | None:
        """Return a lead for the call of `frame`; None if another call leads.

        Unless told to `look`, which takes some µs, it takes the word of another thread's call that
        has not released its lead.

        A call of this very thread never does: it is suspended until the one that asks is over.
        """
        while True:
            before = self._leads.get(max(self._leads))
            if before is None:  # passed over between the two steps
                continue
            can_wait = before.firm or before.thread != get_ident()
            if not before.released and can_wait and not (look and before.is_over()):
                return None
            mine = Lead(before.number + 1, frame, before, before.backend)
            if self._claim(mine):
                return mine

    def _claim(self, mine: Lead[B]) -> bool:
        leads, number = self._leads, mine.number
        if leads.setdefault(number, mine) is not mine:
            return False
        # Numbers are taken out only below one that stays. So a number that was free because it was
        # passed long ago is seen to be too low; and so is ours, if somebody has taken over since.
        if max(leads) != number:
            leads.pop(number, None)
            return False
        leads.pop(number - 1, None)
        if len(leads) > 1:  # somebody was interrupted here
            for lower in [other for other in list(leads) if other < number]:
                leads.pop(lower, None)
        return True
