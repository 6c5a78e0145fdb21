"""`Leadership`: one leader at a time, whose lead ends when the leading call ends."""

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
        thread: The identifier of the thread that the call runs in.
        backend: What it writes with. While `dirty`, it is still that of the lead before, in any
            state.
        attempt: What `backend` may have committed before its callers were told.
        dirty: Whether the lead before was not released: its call has ended, or is suspended below
            this one.
        suspended: Whether a superseded call may continue and find `backend`.
        firm: Whether a call that interrupts this one must not take over.
        instruction: The instruction at which `frame` stays while this lead lasts; None if the lead
            lasts as long as the call.
        held: The call for which the lead before was held, to be held again after this one.
        since: When its current work began, on the monotonic clock.
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
        """Let the lead outlast this call, while the call in `frame` does its work."""
        self.held = None
        self.since = None
        self.frame = frame
        self.instruction = frame.f_lasti
        self.firm = False

    def release(self) -> None:
        """Let the next call lead, with a backend that is at rest."""
        self.released = True
        self.frame = None  # it refers to this lead; only the garbage collector would free the two

    def is_mine(self) -> bool:
        """Return True if its call is of this thread, and therefore suspended, not executing."""
        return self.thread == get_ident()

    def is_over(self) -> bool:
        """Return True if it was released, or its call has ended or continued."""
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
    """Decides who leads. Taking over is one atomic step, and a call may be interrupted at any step.

    Leads are numbered, and the highest number leads. A call that wants to lead claims the next
    number by ``dict.setdefault``. So an exception between any two lines leaves either no claim, or
    the claim of an ended call, which the next call skips; and a call that was superseded finds that
    out by comparing the numbers.
    """

    def __init__(self, backend: B) -> None:
        self._leads: dict[int, Lead[B]] = {0: Lead(0, None, None, backend)}

    def newest(self) -> Lead[B]:
        """Return the lead in force; its call may have ended."""
        while True:
            lead = self._leads.get(max(self._leads))
            if lead is not None:
                return lead

    def is_in_force(self, lead: Lead[B]) -> bool:
        """Return False if another call has taken over."""
        return max(self._leads) == lead.number

    def take(self, frame: FrameType, *, check_ended: bool = True) -> Lead[B] | None:
        """Return a lead for the call in `frame`; None if another call leads.

        With `check_ended`, which takes some µs, it checks whether a call of another thread that has
        not released its lead has ended; otherwise it assumes that the call still runs.

        It takes over from a call of the same thread, unless that one is `firm`: it is suspended
        until the call that asks has ended.
        """
        leads = self._leads
        while True:
            before = leads.get(max(leads))
            if before is None:  # superseded between the two steps
                continue
            can_wait = before.firm or before.thread != get_ident()
            if not before.released and can_wait and not (check_ended and before.is_over()):
                return None
            number = before.number + 1
            mine = Lead(number, frame, before, before.backend)
            if leads.setdefault(number, mine) is not mine:
                continue
            # Numbers are removed only below one that stays. So if a number was free because it was
            # superseded long ago, it is seen to be too low; so is ours, if a call has taken over.
            if max(leads) != number:
                leads.pop(number, None)
                continue
            leads.pop(number - 1, None)
            if len(leads) > 1:  # a call was interrupted here
                for lower in [other for other in list(leads) if other < number]:
                    leads.pop(lower, None)
            return mine
