"""Group commit: all writes to the outbox in one order, many callers' events in one transaction."""

from __future__ import annotations

import sys
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from tracker.clock import monotonic
from tracker.errors import OutboxError, TrackerClosedError, TrackerError
from tracker.frames import get_ident, is_executing
from tracker.outbox.store.leadership import Lead, Leadership
from tracker.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from typing_extensions import Self

    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

_GROUP_LIMIT = 512
"""Entries in one transaction: limits how long the first of them waits for the last."""
_CHECK_SECONDS = (0.005, 0.25)
"""How long a call waits before it checks that the leader still runs: at first, and at most."""
_TRIES = 3
"""How often other calls of the same thread may take over from a job before they are refused."""
_PATIENCE_SECONDS = 10.0
"""How long a call waits for a suspended one of its own thread that it must not take over from."""


class Attempt:
    """A transaction that may have been committed before its callers were told.

    Attributes:
        entries: The calls whose events it contains.
        landed: Not empty once they are committed: the backend adds to it in the same step that
            commits, so that no exception can come between the two.
        result: The result of a job.
    """

    __slots__ = ("entries", "landed", "result")

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries = entries
        self.landed: list[object] = []
        self.result: object = None


class Backend(Protocol):
    """What commits: `WriteConnection`. Only one call at a time uses it, the leading one.

    After any exception it is retired, whatever state it is in.
    """

    def append(self, event: Event) -> bool:
        """Commit `event` alone; return False if that takes a transaction, or a wait."""

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        """Commit `events` in one transaction; add to `attempt.landed` in the same step."""

    def transact(self, job: Callable[[Transaction], object], attempt: Attempt) -> None:
        """Run `job` in a transaction, record its result, and commit like `append_all`."""

    def retire(self, *, suspended: bool, sound: bool) -> Self:
        """Roll back what is open, release all locks, and return the backend to go on with.

        If this one is `sound`, because the exception was not its fault, the new one may keep what
        is open.

        A call that still has the retired backend, because it is `suspended`, can do nothing with it
        but fail. This may be called again, and is called again after an exception interrupted it.
        """

    def close(self) -> None:
        """Close what is open; a later write opens it again."""

    def explain(self, error: Exception) -> Exception:
        """Return the error that callers should see: our own one if `error` is about storage."""

    def is_conflict(self, error: Exception) -> bool:
        """Return True if some of the events violated a constraint, which concerns them alone."""


B = TypeVar("B", bound=Backend)


class Entry:
    """One call in the queue: events, which any leader commits, or a job, which only its call runs.

    `turn` is set when the events are committed, or when its call should try to lead. The
    first outcome counts: None for success, or the error. `unsure` says that the event, a single
    one, may be stored already: by its call before another took over, or by another process.
    """

    __slots__ = ("events", "frame", "outcome", "since", "thread", "turn", "unsure")

    def __init__(self, events: Sequence[Event], frame: FrameType, *, unsure: bool = False) -> None:
        self.events = events
        self.frame: FrameType | None = frame
        self.thread = get_ident()
        self.since = monotonic()
        self.unsure = unsure
        self.outcome: list[Exception | None] = []
        self.turn = Wakeup()

    def is_abandoned(self) -> bool:
        """Return True if its call has ended: it raised something before it knew the outcome."""
        frame = self.frame
        return frame is None or not is_executing(frame)


class GroupCommit(Generic[B]):
    """Runs write jobs one at a time, and commits many callers' events together.

    A call that finds nobody leading leads: it commits all queued events, its own included, then
    wakes the first call that still waits, which leads next unless a new call was faster. So one
    fsync serves all calls that came in the meantime, and a single thread pays nothing for it.

    An exception raised between any two lines here, by a signal handler, by another thread or by the
    interpreter, affects the call that it hits and no other. Nothing has to be repaired for that:

    - Leading is a property of a running call; see `Leadership`. When a call has ended, the next
      leader retires what it left behind. Waiting calls check regularly for such a call.
    - A call inside another one of the same thread (a signal handler, ``__del__``) does not wait for
      it and does not depend on it: it takes over, and returns when its own events are committed.
      The outer call finds its backend retired and queues again, unless it was committed before.
    - Events stay in the queue until their outcome is known, and `Attempt` knows what was committed.

    Owns the queue. Only the leading call uses the backend.

    Args:
        backend: Commits.
    """

    def __init__(self, backend: B) -> None:
        self._closed = False
        self._reset(backend)

    def _reset(self, backend: B) -> None:
        self._queue: deque[Entry] = deque()
        self._leadership: Leadership[B] = Leadership(backend)

    @property
    def backend(self) -> B:
        """What the leading call uses, or the next one will."""
        return self._leadership.newest().backend

    def waiting_since(self) -> float | None:
        """Return the monotonic time at which the longest waiting call began, or None."""
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
        """Commit `event` alone; False if another call leads, or it takes a transaction."""
        lead = self._leadership.take(sys._getframe(), check_ended=False)
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
            self.append_all((event,), unsure=True)
            return True
        except BaseException as error:
            self._give_up(lead, error)
            raise
        if self._queue or lead.held is not None:
            self._step_down(lead)
        else:
            lead.release()
        return stored

    def append_all(self, events: Sequence[Event], *, unsure: bool = False) -> None:
        """Commit `events` in one transaction, all or none of them; otherwise like `append`.

        With `unsure` it is a single one, which may be stored already.
        """
        entry = Entry(events, sys._getframe(), unsure=unsure)
        try:
            self._queue.append(entry)
            while not entry.outcome:
                lead = self._take_turn(entry)
                if lead is not None:
                    self._lead(lead, entry)
        finally:
            if not entry.outcome:  # otherwise it was removed when settled, or will be by a leader
                self._drop(entry)
            entry.frame = None
        if entry.outcome[0] is not None:
            raise entry.outcome[0]

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run `job` in a write transaction, commit, and return its result.

        If a call that interrupts this one takes over, the job is run again.

        Raises:
            OutboxError: if SQLite or the system reports an error; then nothing of `job` is stored.
            TrackerClosedError: if the writer is closed.
        """
        entry = Entry((), sys._getframe())
        try:
            self._queue.append(entry)
            for tries in range(sys.maxsize):
                lead = self._await_lead(entry)
                attempt = Attempt()
                if self._run_in(lead, job, attempt, firm=tries >= _TRIES):
                    break
        finally:
            self._drop(entry)
            self._wake()  # when it stepped down, it was the first in the queue itself
            entry.frame = None
        return cast("T", attempt.result)

    def _run_in(
        self, lead: Lead[B], job: Callable[[Transaction], object], attempt: Attempt, *,
        firm: bool,
    ) -> bool:  # fmt: skip
        """Run `job` as the leader; return False if another call took over before the commit."""
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

        Returns None, without doing anything, inside such work of the same thread.
        """
        entry = Entry((), sys._getframe())
        lead: Lead[B] | None = None
        try:
            self._queue.append(entry)
            while True:
                lead = self._await_lead(entry)
                lead.firm = True
                if self._leadership.is_in_force(lead):
                    break  # and from now on no call of this thread takes over
            if lead.dirty:
                self._take_over(lead)
            if before := self._waiting_before(entry):
                self._commit(lead, before)
            lead.backend.close()
            self._drop(entry)
            result = work()
            lead.backend.close()  # `work` may have opened it
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
        """Close the backend and keep everybody out until `resume`, or until `frame` continues.

        For a fork, which the call in `frame` is about to make. Writes of this thread before that
        are let in, and the backend is closed again after them. Returns False, without doing
        anything, inside `alone`.
        """

        def hold() -> bool:
            self._leadership.newest().held = frame
            return True

        return bool(self.alone(hold))

    def resume(self) -> None:
        """End a `hold` of this thread; calls that came meanwhile continue."""
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
        """Forget, in a forked child, the threads and queue of the parent."""
        self._reset(backend)

    def retire_ended_call(self) -> None:
        """Retire what an ended call left behind, if one did: other processes may be waiting.

        Cheap enough to be called regularly by an idle thread.
        """
        lead = self._leadership.newest()
        if not lead.released and lead.is_over():
            mine = self._leadership.take(sys._getframe())
            if mine is not None:
                self._give_up(mine, None)

    # --- leading --------------------------------------------------------------------------------

    def _take_turn(self, entry: Entry) -> Lead[B] | None:
        """Wait for the lead, and return it; None if `entry` is settled."""
        patience, longest = _CHECK_SECONDS
        give_up_at = entry.since + _PATIENCE_SECONDS
        waited = check = False
        while not entry.outcome:
            if waited or self._may_go_first(entry):
                lead = self._leadership.take(cast("FrameType", entry.frame), check_ended=check)
                if lead is not None:
                    return lead
                if check or not waited:
                    self._refuse_inside_firm_lead(give_up_at)
            waited = True
            check = not entry.turn.wait(patience)
            if check:
                patience = min(2 * patience, longest)
        return None

    def _await_lead(self, entry: Entry) -> Lead[B]:
        """Wait for the lead for a job, which only its own call can run."""
        while (lead := self._take_turn(entry)) is None:
            pass
        return lead

    def _may_go_first(self, entry: Entry) -> bool:
        """Return False for a new call behind a job, which no other call would run."""
        try:
            first = self._queue[0]
        except IndexError:
            return True
        if first is entry or first.events or first.thread == entry.thread:
            return True
        return first.is_abandoned()

    def _refuse_inside_firm_lead(self, give_up_at: float) -> None:
        lead = self._leadership.newest()
        if lead.firm and lead.is_mine() and (lead.is_below() or monotonic() > give_up_at):
            raise _InsideError(
                "the outbox cannot take this call now: it came inside work of the same thread that "
                "repairs or rewrites the outbox, or was interrupted too often; call again when "
                "that work has ended"
            )

    def _lead(self, lead: Lead[B], entry: Entry) -> None:
        """Commit what is queued until `entry` is settled; then step down."""
        try:
            if lead.dirty:
                self._take_over(lead)
            while not entry.outcome and self._leadership.is_in_force(lead):
                self._commit(lead, self._next(entry))
        except BaseException as error:
            self._give_up(lead, error)
            raise
        self._step_down(lead)

    def _waiting_before(self, own: Entry) -> list[Entry]:
        """Return the entries with events that came before `own` and are not committed yet."""
        before = takewhile(lambda entry: entry is not own, list(self._queue))
        return [each for each in before if each.events and not each.outcome]

    def _next(self, own: Entry) -> list[Entry]:
        """Return the entries to commit together next; they stay in the queue until settled.

        This includes events of an ended call that was not able to withdraw them.
        """
        batch = []
        # Copied in one step of the interpreter: an iterator fails if a call comes in between.
        for entry in list(self._queue)[:_GROUP_LIMIT]:
            if entry.outcome:
                self._drop(entry)
            elif entry.events:
                batch.append(entry)
            elif entry is not own and entry.is_abandoned():
                self._drop(entry)
        return batch or [own]

    def _commit(self, lead: Lead[B], batch: list[Entry]) -> None:
        """Commit the events of `batch` and give each of its calls the outcome."""
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

    def _settle_failed(self, lead: Lead[B], batch: list[Entry], error: Exception) -> None:
        """Fail only the entry whose events were at fault, or all if storage failed."""
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
        """Return True if `error` hit the leading call rather than the work that it did for all."""
        if isinstance(error, (RecursionError, MemoryError)):
            return True
        known = isinstance(error, (TrackerError, ValueError, TypeError, OverflowError))
        return not known and lead.backend.explain(error) is error

    @staticmethod
    def _is_for_all(lead: Lead[B], error: Exception) -> bool:
        """Return True if storage failed, False if the events of one call may be at fault."""
        if lead.backend.is_conflict(error):
            return False
        return isinstance(error, TrackerError) or lead.backend.explain(error) is not error

    @staticmethod
    def _is_fence(error: Exception, lead: Lead[B]) -> bool:
        """Return True for an error of a retired backend, False for one that a caller should see."""
        explained = lead.backend.explain(error)
        return explained is not error or isinstance(error, OutboxError)

    def _settle(self, entry: Entry, error: Exception | None) -> None:
        entry.outcome.append(error)
        self._drop(entry)
        entry.turn.set()

    def _drop(self, entry: Entry) -> None:
        try:  # takes half as long as `suppress`
            self._queue.remove(entry)
        except ValueError:
            return

    def _take_over(self, lead: Lead[B], *, failed: bool = False, sound: bool = False) -> None:
        """Retire the backend that this or the previous lead has left; report what it committed."""
        fresh = lead.backend.retire(suspended=lead.suspended, sound=sound)
        attempt = cast("Attempt | None", lead.attempt)
        if attempt is not None and attempt.landed and not failed:
            for entry in attempt.entries:
                self._settle(entry, None)
        lead.attempt = None
        lead.backend = fresh
        lead.suspended = lead.dirty = False

    def _give_up(self, lead: Lead[B], error: BaseException | None) -> bool:
        """End a lead in which `error` was raised; return False if another call has taken over.

        If this is interrupted too, the next leader finds an ended call, and does the same.
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
        """Give up the lead and wake the call that should lead next, if one waits."""
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
        first.turn.set()


class _InsideError(OutboxError):
    """A call inside work of its own thread that keeps everybody out."""
