"""Group commit: every write to the outbox in one order, many callers' in one transaction."""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice, takewhile
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from tracker.clock import monotonic
from tracker.errors import OutboxError, TrackerClosedError, TrackerError
from tracker.frames import get_ident, is_executing
from tracker.outbox.store.leadership import Lead, Leadership

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from typing_extensions import Self

    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

_GROUP_LIMIT = 512
"""Entries in one transaction: bounds how long the first of them waits for the last."""
_LOOK_SECONDS = (0.005, 0.25)
"""How long a call waits before it looks whether the leader is over, at first and at last."""
_TRIES = 3
"""How often calls of its own thread may take over from a job before they are refused."""
_PATIENCE_SECONDS = 10.0
"""How long a call waits for a suspended one of its own thread that it must not take over from."""


class Attempt:
    """What may have been committed before anybody was told.

    Attributes:
        entries: Whose events it holds.
        landed: Not empty once they are committed: the backend adds to it in the very step that
            commits, between which and the commit no exception can fall.
        result: What a job returned.
    """

    __slots__ = ("entries", "landed", "result")

    def __init__(self, entries: Sequence[_Entry] = ()) -> None:
        self.entries = entries
        self.landed: list[object] = []
        self.result: object = None


class Backend(Protocol):
    """What commits: `WriteConnection`. One call at a time uses it, the one that leads.

    After any exception it is retired, in whatever state it is.
    """

    def append(self, event: Event) -> bool:
        """Commit `event` by itself; return False if it takes a transaction."""

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        """Commit `events` in one transaction; add to `attempt.landed` in the same step."""

    def transact(self, job: Callable[[Transaction], object], attempt: Attempt) -> None:
        """Run `job` in a transaction, note its result, and commit as `append_all`."""

    def retire(self, *, suspended: bool, sound: bool) -> Self:
        """Roll back what is open, free all locks, and return what to go on with.

        If it is `sound`, for what was raised was not its own trouble, that may go on with what is
        open.

        A call that still has the retired one, for it is `suspended`, can do nothing with it but
        fail. It may be called again, and is where an exception has cut it off.
        """

    def close(self) -> None:
        """Close what is open; a later write opens it again."""

    def explain(self, error: Exception) -> Exception:
        """Return what callers should see of an error: another one if it is storage's."""

    def is_conflict(self, error: Exception) -> bool:
        """Return True if some of the events did not fit, which is not the others' fault."""


B = TypeVar("B", bound=Backend)


class _Entry:
    """One call in the queue: events, which any leader commits, or a job, which only its call runs.

    `turn` gets a token when the events are committed, or when its call should see whether to lead.
    The first outcome counts: None for success, or the error.
    """

    __slots__ = ("events", "frame", "outcome", "since", "thread", "turn")

    def __init__(self, events: Sequence[Event], frame: FrameType) -> None:
        self.events = events
        self.frame: FrameType | None = frame
        self.thread = get_ident()
        self.since = monotonic()
        self.outcome: list[Exception | None] = []
        self.turn: SimpleQueue[None] = SimpleQueue()

    def is_abandoned(self) -> bool:
        """Return True if its call is over: it raised something before it heard of the outcome."""
        frame = self.frame
        return frame is None or not is_executing(frame)


class GroupCommit(Generic[B]):
    """Runs write jobs one at a time, and commits many callers' events together.

    Who finds nobody leading leads: commits all events that are queued, its own included, then
    wakes the first call that still waits, which leads next unless a newcomer was faster. One
    fsync so serves all who came meanwhile, and a single thread pays nothing for it.

    Whatever is raised between any two lines here, by a signal handler, by another thread or by the
    interpreter, costs the call that it hits and no other. Nothing has to be put right for that:

    - Who leads is a fact about a call that is under way; see `Leadership`. What a call leaves
      behind that is over, the next leader retires. Who waits looks for such a call every so often.
    - A call inside another one of its thread (a signal handler, ``__del__``) does not wait for
      it, and does not count on it: it takes over, and returns when its own events are committed.
      The call below finds its backend retired and queues again, unless it was committed before.
    - Events stay in the queue until their outcome is known, and `Attempt` knows what landed.

    Owns the queue. The backend is used by the leading call only.

    Args:
        backend: Commits.
    """

    def __init__(self, backend: B) -> None:
        self._closed = False
        self._begin_again(backend)

    def _begin_again(self, backend: B) -> None:
        self._queue: deque[_Entry] = deque()
        self._leadership: Leadership[B] = Leadership(backend)

    @property
    def backend(self) -> B:
        """What the leading call works with, or the next one will."""
        return self._leadership.newest().backend

    def waiting_since(self) -> float | None:
        """Return since when, on the monotonic clock, the first call has waited that is not done."""
        times = [entry.since for entry in list(self._queue) if not entry.outcome]
        lead = self._leadership.newest()
        if not (lead.released or lead.firm or lead.since is None or lead.is_over()):
            times.append(lead.since)
        return min(times, default=None)

    # --- writing --------------------------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Commit `event`; on return it is durable.

        Raises:
            OutboxError: if it could not be stored.
            TrackerClosedError: if the writer is closed.
        """
        if self._queue or not self._append_alone(event):
            self.append_all((event,))

    def _append_alone(self, event: Event) -> bool:
        """Commit `event` by itself; False if somebody else leads, or it takes a transaction."""
        lead = self._leadership.take(sys._getframe(), look=False)
        if lead is None:
            return False
        try:
            if lead.dirty:
                self._take_over(lead)
            lead.since = monotonic()
            stored = lead.backend.append(event)
        except Exception as error:
            if self._give_up(lead, error):
                raise lead.backend.explain(error) from error
            if not self._is_fence(error, lead):
                raise
            self.run(lambda transaction: transaction.append_missing(event))
            return True
        except BaseException as error:
            self._give_up(lead, error)
            raise
        if self._queue or lead.held is not None:
            self._step_down(lead)
        else:
            lead.release()
        return stored

    def append_all(self, events: Sequence[Event]) -> None:
        """Commit `events` in one transaction, all or none of them; otherwise as `append`."""
        entry = _Entry(events, sys._getframe())
        try:
            self._queue.append(entry)
            while not entry.outcome:
                lead = self._take_turn(entry)
                if lead is not None:
                    self._lead(lead, entry)
        finally:
            if not entry.outcome:  # else who settled it has taken it out, or the next leader does
                self._drop(entry)
            entry.frame = None
        if entry.outcome[0] is not None:
            raise entry.outcome[0]

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run `job` in a write transaction, commit, and return its result.

        Where a call that interrupts this one takes over, the job is run again.

        Raises:
            OutboxError: if SQLite or the system failed; then nothing of `job` is stored.
            TrackerClosedError: if the writer is closed.
        """
        entry = _Entry((), sys._getframe())
        try:
            self._queue.append(entry)
            for tries in range(sys.maxsize):
                lead = self._await_lead(entry)
                attempt = Attempt()
                if self._run_in(lead, job, attempt, firm=tries >= _TRIES):
                    break
        finally:
            self._drop(entry)
            entry.frame = None
        return cast("T", attempt.result)

    def _run_in(
        self, lead: Lead[B], job: Callable[[Transaction], object], attempt: Attempt, *,
        firm: bool,
    ) -> bool:  # fmt: skip
        """Run `job` as the leader; return False if somebody took over before it was committed."""
        try:
            lead.firm = firm
            if lead.dirty:
                self._take_over(lead)
            self._check_open()
            lead.since = monotonic()
            lead.backend.transact(job, attempt)
        except Exception as error:
            if self._give_up(lead, error):
                raise lead.backend.explain(error) from error
            if not self._is_fence(error, lead):
                raise
            return bool(attempt.landed)
        except BaseException as error:
            self._give_up(lead, error)
            raise
        self._step_down(lead)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")

    # --- keeping everybody out ------------------------------------------------------------------

    def alone(self, work: Callable[[], T]) -> T | None:
        """Run `work` while nobody writes and the backend is closed.

        Returns None, having done nothing, inside such work of this very thread.
        """
        entry = _Entry((), sys._getframe())
        lead: Lead[B] | None = None
        try:
            self._queue.append(entry)
            while True:
                lead = self._await_lead(entry)
                lead.firm = True
                if self._leadership.is_in_force(lead):
                    break  # and no call of this thread takes over from now on
            if lead.dirty:
                self._take_over(lead)
            if before := self._waiting_before(entry):
                self._commit(lead, before)
            lead.backend.close()
            self._drop(entry)
            result = work()
            lead.backend.close()  # what the work may have opened
        except _InsideError:
            return None
        except BaseException as error:
            if lead is not None:
                self._give_up(lead, error)
            raise
        finally:
            self._drop(entry)
            entry.frame = None
        self._step_down(lead)
        return result

    def hold(self, frame: FrameType) -> bool:
        """Close the backend and keep everybody out until `resume`, or until `frame` goes on.

        For a fork, which the call of `frame` is about to make. What this thread still writes before
        it is let in, and the backend closed once more. Returns False, having done nothing, inside
        `alone`.
        """

        def hold() -> bool:
            self._leadership.newest().held = frame
            return True

        return bool(self.alone(hold))

    def resume(self) -> None:
        """End a `hold` of this thread; calls that came meanwhile go on."""
        lead = self._leadership.newest()
        if lead.instruction is not None and lead.is_mine():
            lead.release()
        self._wake()

    def close(self, then: Callable[[], None]) -> None:
        """Refuse later writes with TrackerClosedError, and call `then` while nobody writes."""
        self._closed = True
        self.alone(then)

    def is_idle(self) -> bool:
        """Return True if nobody was committing when this process was forked."""
        lead = self._leadership.newest()
        return lead.released or lead.instruction is not None

    def restart_in_child(self, backend: B) -> None:
        """Forget, in a forked child, the parent's threads and queue."""
        self._begin_again(backend)

    def free_what_is_over(self) -> None:
        """Retire what a call left behind that is over, if one did: other processes may wait.

        Cheap, for a thread that has nothing else to do to call now and then.
        """
        lead = self._leadership.newest()
        if not lead.released and lead.is_over():
            mine = self._leadership.take(sys._getframe())
            if mine is not None:
                self._give_up(mine, None)

    # --- leading --------------------------------------------------------------------------------

    def _take_turn(self, entry: _Entry) -> Lead[B] | None:
        """Wait for the lead, and return it; None if `entry` is settled."""
        patience, longest = _LOOK_SECONDS
        give_up_at = entry.since + _PATIENCE_SECONDS
        waited = look = False
        while not entry.outcome:
            if waited or self._may_go_first(entry):
                lead = self._leadership.take(cast("FrameType", entry.frame), look=look)
                if lead is not None:
                    return lead
                if look or not waited:
                    self._see_that_it_ends(give_up_at)
            waited = True
            try:
                entry.turn.get(timeout=patience)
                look = False
            except Empty:
                look = True
                patience = min(2 * patience, longest)
        return None

    def _await_lead(self, entry: _Entry) -> Lead[B]:
        """Wait for the lead for a job, which no other call settles."""
        while (lead := self._take_turn(entry)) is None:
            pass
        return lead

    def _may_go_first(self, entry: _Entry) -> bool:
        """Return False for a newcomer behind a job, which no other call would run."""
        try:
            first = self._queue[0]
        except IndexError:
            return True
        if first is entry or first.events or first.thread == entry.thread:
            return True
        return first.is_abandoned()

    def _see_that_it_ends(self, give_up_at: float) -> None:
        lead = self._leadership.newest()
        if lead.firm and lead.is_mine() and (lead.is_below() or monotonic() > give_up_at):
            raise _InsideError(
                "this call came while its own thread has the outbox for itself, to repair it or to "
                "write it anew; call again once that is over"
            )

    def _lead(self, lead: Lead[B], entry: _Entry) -> None:
        """Commit what is queued until `entry` is done, and step down."""
        try:
            if lead.dirty:
                self._take_over(lead)
            while not entry.outcome and self._leadership.is_in_force(lead):
                self._commit(lead, self._next(entry))
        except BaseException as error:
            self._give_up(lead, error)
            raise
        self._step_down(lead)

    def _waiting_before(self, own: _Entry) -> list[_Entry]:
        """Return whose events came before `own` and are not committed yet."""
        before = takewhile(lambda entry: entry is not own, list(self._queue))
        return [each for each in before if each.events and not each.outcome]

    def _next(self, own: _Entry) -> list[_Entry]:
        """Return whose events to commit together next; they stay in the queue until settled.

        Those of a call that is over, too, if it did not get to withdraw them.
        """
        batch = []
        for entry in list(islice(self._queue, _GROUP_LIMIT)):
            if entry.outcome:
                self._drop(entry)
            elif entry.events:
                batch.append(entry)
            elif entry is not own and entry.is_abandoned():
                self._drop(entry)
        return batch or [own]

    def _commit(self, lead: Lead[B], batch: list[_Entry]) -> None:
        """Commit the events of `batch` and tell each of its calls the outcome."""
        attempt = Attempt(batch)
        lead.attempt = attempt
        try:
            self._check_open()
            lead.since = monotonic()
            lead.backend.append_all([e for entry in batch for e in entry.events], attempt)
        except Exception as error:
            if self._leadership.is_in_force(lead):
                if self._is_callers_own(lead, error):
                    raise
                self._settle_failed(lead, batch, error)
            elif not self._is_fence(error, lead):
                raise
        else:
            for entry in batch:
                self._settle(entry, None)
            lead.attempt = None

    def _settle_failed(self, lead: Lead[B], batch: list[_Entry], error: Exception) -> None:
        """Tell who failed: the events of one call are not the others' fault; a full disk is."""
        self._take_over(lead, failed=True)
        if len(batch) > 1 and not self._is_for_all(lead, error):
            for entry in batch:
                if not entry.outcome:
                    self._commit(lead, [entry])
        else:
            for entry in batch:
                self._settle(entry, lead.backend.explain(error))

    @staticmethod
    def _is_callers_own(lead: Lead[B], error: Exception) -> bool:
        """Return True for what hit the leading call rather than the work that it did for all."""
        if isinstance(error, (RecursionError, MemoryError)):
            return True
        known = isinstance(error, (TrackerError, ValueError, TypeError, OverflowError))
        return not known and lead.backend.explain(error) is error

    @staticmethod
    def _is_for_all(lead: Lead[B], error: Exception) -> bool:
        """Return True for a full disk, False for what may be the fault of one of many."""
        if lead.backend.is_conflict(error):
            return False
        return isinstance(error, TrackerError) or lead.backend.explain(error) is not error

    @staticmethod
    def _is_fence(error: Exception, lead: Lead[B]) -> bool:
        """Return True for what a retired backend raises, False for what a caller should see."""
        explained = lead.backend.explain(error)
        return explained is not error or isinstance(error, OutboxError)

    def _settle(self, entry: _Entry, error: Exception | None) -> None:
        entry.outcome.append(error)
        self._drop(entry)
        entry.turn.put(None)

    def _drop(self, entry: _Entry) -> None:
        try:  # in half the time of `suppress`
            self._queue.remove(entry)
        except ValueError:
            return

    def _take_over(self, lead: Lead[B], *, failed: bool = False, sound: bool = False) -> None:
        """Retire what the lead before, or this one, has left; tell of what had landed."""
        fresh = lead.backend.retire(suspended=lead.suspended, sound=sound)
        attempt = cast("Attempt | None", lead.attempt)
        if attempt is not None and attempt.landed and not failed:
            for entry in attempt.entries:
                self._settle(entry, None)
        lead.attempt = None
        lead.backend = fresh
        lead.suspended = lead.dirty = False

    def _give_up(self, lead: Lead[B], error: BaseException | None) -> bool:
        """End a lead in which `error` was raised; False if somebody has taken over.

        If this is interrupted too, the next leader finds a call that is over, and does the same.
        """
        if not self._leadership.is_in_force(lead):
            return False
        hit_the_call = error is not None and (
            not isinstance(error, Exception) or self._is_callers_own(lead, error)
        )
        self._take_over(lead, sound=hit_the_call and not lead.dirty)
        self._step_down(lead)
        return True

    def _step_down(self, lead: Lead[B]) -> None:
        """Give up the lead and wake who should lead next, if anybody waits."""
        held = lead.held
        if held is not None and self._leadership.is_in_force(lead):
            lead.backend.close()
            lead.hold_for(held)
            return
        lead.release()
        self._wake()

    def _wake(self) -> None:
        try:
            first = self._queue[0]
        except IndexError:
            return
        first.turn.put(None)


class _InsideError(OutboxError):
    """A call inside one of its own thread that keeps everybody out."""
