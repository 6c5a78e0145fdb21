"""Waiting until pending events are settled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tracker import log
from tracker.clock import monotonic, sleep
from tracker.errors import OutboxError
from tracker.outbox import batches, dead_letters, ledger, sync_state
from tracker.sync.pause import CHECKPOINT_SECONDS, HASHING_SECONDS, OFFLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.outbox import Account, Outbox
    from tracker.sync.worker import Worker

_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 3.0
"""How long another process may take to notice that it is asked to upload."""


@dataclass(frozen=True)
class FlushResult:
    """The state of the events that were pending at the call or settled since the previous flush.

    Attributes:
        delivered: Number of events of all processes that a receipt says are stored, since the
            previous flush or since the outbox was opened, including those uploaded in the
            background.
        pending: Number of events that are still pending; they are safe in the outbox.
        dead: Number of events that became dead letters in that time, since the server permanently
            rejected them; see ``tracker-sync dead list``.
    """

    delivered: int = 0
    pending: int = 0
    dead: int = 0


class Flush:
    """A wait for all events that are pending when it is made. Thread-safe.

    Args:
        outbox: The outbox.
        worker: Uploads.
        checkpoint: Whether to log a checkpoint first, if one is due.
        ordered: Whether to send what is pending though the upload window is closed or `may_upload`
            says no.

    Attributes:
        held: Whether a wait ended early because one of these keeps the events back.
    """

    def __init__(
        self, outbox: Outbox, worker: Worker, *, checkpoint: bool = False, ordered: bool = False
    ) -> None:
        self._outbox = outbox
        self._worker = worker
        self._ordered = ordered
        self.held = False
        if checkpoint:
            self._checkpoint()
        self._begin()

    def _checkpoint(self) -> None:
        """Log a checkpoint if one is due, so that this flush sends it, and leaves none behind."""
        try:
            with self._outbox.reading() as connection:
                state = sync_state.read_state(connection)
            offline = state.paused_because or state.waits_because
            seconds = OFFLINE_SECONDS if offline else CHECKPOINT_SECONDS
            self._outbox.checkpoint(seconds, HASHING_SECONDS)
        except OutboxError as error:
            log.info("a checkpoint that is due cannot be logged yet: %s", error)
        except Exception as error:  # noqa: BLE001 - a bug there; the worker tries again and says so
            log.info("a checkpoint that is due cannot be logged yet: %r", error)

    def _begin(self) -> None:
        self._generation = self._outbox.generation
        self._from_memory = self._outbox.buffered > 0  # read before they are written
        self._target, self._before, self._dead_before = self._look(None)
        self._pending = self._before.pending

    @property
    def settled_before(self) -> tuple[int, int]:
        """The numbers of delivered and dead events when this began."""
        return self._before.delivered, self._before.dead

    def _look(self, through: int | None) -> tuple[int, Account, int]:
        """Return last or settled seq, account and number of dead letters at one moment."""
        with self._outbox.reading() as connection:
            connection.exec_driver_sql("BEGIN")
            last = ledger.last_seq(connection)
            dead = dead_letters.count(connection, last if through is None else through)
            reached = last if through is None else batches.settled_through(connection)
            book = ledger.read(connection)
            connection.exec_driver_sql("COMMIT")
        return reached, book, dead

    def wait(
        self,
        timeout: float | None,
        *,
        patient: bool = True,
        progress: Callable[[FlushResult], None] | None = None,
    ) -> FlushResult:
        """Upload now, and wait until all events are settled or the timeout has passed.

        Args:
            timeout: Seconds; None means no limit. It returns earlier if a setting keeps the events
                back.
            patient: If False, give up as soon as an attempt fails or another process uploads.
            progress: Called repeatedly with the current result.
        """
        end = None if timeout is None else monotonic() + timeout
        failures, holds = self._worker.failures, self._worker.holds
        if self._settled():
            return self.result()
        self._worker.hurry(ordered=self._ordered)
        asked: float | None = None
        while not self._settled():
            if patient and self._worker.elected is False and asked is None:
                asked = monotonic()
                self._outbox.run(partial(sync_state.request_flush, now=self._ordered))
            left = _POLL_SECONDS if end is None else end - monotonic()
            if not patient and (
                self._worker.failures > failures
                or self._worker.elected is False
                or self._worker.held_until > monotonic() + left
            ):
                break
            self.held = not self._ordered and (self._worker.holds > holds or self._refused(asked))
            if left <= 0 or self.held:
                break
            sleep(min(left, _POLL_SECONDS))
            if progress is not None:
                progress(self.result())
        return self.result()

    def _refused(self, asked: float | None) -> bool:
        """Return True if the process that uploads was asked to, and a setting keeps it from it."""
        if asked is None or monotonic() - asked < _ANSWER_SECONDS:
            return False
        with self._outbox.reading() as connection:
            return sync_state.read_state(connection).is_held

    def _settled(self) -> bool:
        if self._generation != self._outbox.generation:
            self._begin()  # the outbox was replaced: all events have another seq
        buffered = self._outbox.buffered > 0
        if self._from_memory and not buffered:
            # Events from memory have got their seqs only now.
            self._target, now, dead = self._look(None)
            self._pending = now.pending + self._settled_since(now, dead)
        self._from_memory = buffered
        with self._outbox.reading() as connection:
            settled = batches.settled_through(connection)
        return settled >= self._target and not buffered

    def result(self) -> FlushResult:
        """Return the current result for the events of this flush."""
        settled, now, dead_now = self._look(self._target)
        dead = max(0, dead_now - self._dead_before)
        waiting = self._outbox.buffered
        delivered = max(0, now.delivered - self._before.delivered)  # `resend` makes it less
        if settled >= self._target:
            rest = self._pending - dead  # newer events may have been delivered as well
            discarded = self._settled_since(now, dead_now) - delivered - dead
            return FlushResult(min(rest, delivered) if discarded else rest, waiting, dead)
        left = max(0, self._pending - self._settled_since(now, dead_now))
        return FlushResult(delivered, left + waiting, dead)

    def _settled_since(self, now: Account, dead: int) -> int:
        """Return how many events were delivered, refused for good or discarded since it began."""
        return (
            now.delivered - self._before.delivered
            + max(0, dead - self._dead_before)
            + sum(now.discarded.values()) - sum(self._before.discarded.values())
            + now.skipped - self._before.skipped
        )  # fmt: skip
