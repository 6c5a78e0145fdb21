"""`Uploader`: sends the next batch and records the answer in the outbox."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tracker import log
from tracker.clock import monotonic, wall
from tracker.delivery.retry import Backoff
from tracker.delivery.sizing import Sizing
from tracker.errors import OutboxError, OutboxFullError
from tracker.once import Once
from tracker.outbox import (
    DeadLetter,
    Remarks,
    Urgent,
    batches,
    is_disk_full,
    ledger,
    settlement,
    sync_state,
)
from tracker.sync.copies import Copies
from tracker.sync.destination import Outcome, Upload
from tracker.sync.letters import letters_of
from tracker.sync.metering import Metering
from tracker.sync.notice import Notice
from tracker.sync.pause import CHECKPOINT_SECONDS, HASHING_SECONDS, OFFLINE_SECONDS, Pause
from tracker.sync.rate_limit import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tracker.config import APIConfig
    from tracker.outbox import Batch, Outbox
    from tracker.sync.destination import Delivery, Destination, SignedHead
    from tracker.sync.hold import Hold

_END_SECONDS = 3_600.0
_FIRST_PRUNE_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0
_WORTH_NOTING_SECONDS = 1.0
"""A shorter pause by a setting is not written to the outbox: nobody would see it."""
_SAY_AGAIN_SECONDS = 3600.0
"""Interval between log lines about the same failure, so that a flaky link does not fill the log."""


GO_ON = Pause(0.0)
IDLE = Pause(1.0, idle=True)


class _Upcoming(NamedTuple):
    """A batch, and the upload that is passed to the destination."""

    batch: Batch
    upload: Upload


class _Received(NamedTuple):
    """A batch with a receipt that is not recorded in the outbox yet, and its dead letters.

    If the next batch is ready, it is sent first, and the receipt is recorded while the next one is
    awaited. If the process dies in between, the events are sent again, as after any lost receipt.
    """

    batch: Batch
    letters: Sequence[DeadLetter]
    remarks: Remarks | None
    skipped: Collection[str]
    witness: SignedHead | None


class Uploader:
    """Sends pending events, batch by batch, and records the results.

    It has no thread: that of the sync worker calls `step` repeatedly, and is the only one to use
    the destination.

    Attributes:
        destination: Where batches are sent.
        outbox_id: The id of the outbox that the destination was made for.
        failures: Number of failed attempts.
        holds: How often a setting kept back what was pending, the byte rate apart.
    """

    def __init__(
        self,
        outbox: Outbox,
        config: APIConfig,
        destination: Destination,
        clock: Callable[[], float] = monotonic,
        time_of_day: Callable[[], float] = wall,
    ) -> None:
        self.destination = destination
        self.outbox_id = outbox.owner.outbox_id
        self.failures = 0
        self.holds = 0
        self._outbox = outbox
        self._clock = clock
        self._metering = Metering(config, self._note, clock, time_of_day)
        self._sizing = Sizing(config.batch_max_events, self._metering.batch_bytes)
        self._backoff = Backoff(config.backoff_base, config.backoff_cap)
        self._bucket = TokenBucket(config.requests_per_minute, clock())
        self._prune_at = clock() + _FIRST_PRUNE_SECONDS
        self._end_at = clock()
        self._trouble: str | None = None
        self._trouble_said = False
        self._logged = Once(seconds=_SAY_AGAIN_SECONDS, clock=clock)
        self._copies = Copies(outbox)
        self._notice = Notice(outbox.path, clock)
        self._ahead: _Upcoming | None = None
        self._received: list[_Received] = []
        self._stale = False  # the last request used a connection that the server had closed
        self._last: int | None = None  # the last seq that may be sent, or None for no limit
        self._urgent = Urgent()
        self._ordered = 0  # by hand: what is pending up to here is sent in any case
        self._generation = outbox.generation

    def step(self) -> Pause:
        """Send at most one batch and return how long to wait before the next step.

        Raises:
            OutboxError: if the outbox could not be read or written.
        """
        try:
            self._outbox.drain_buffer()
        except OutboxError as error:
            if not (isinstance(error, OutboxFullError) or is_disk_full(error)):
                raise  # otherwise sending events frees space
        self._end_interrupted_if_due()
        self._prune_if_due()
        pause = self._until_open()
        if pause is not None:
            return pause
        upcoming = self._take_ahead()
        if upcoming is None:
            self._record_received()
            upcoming = self._upcoming(self._next_batch())
        if not upcoming.batch.rows:
            return IDLE
        if upcoming.batch.outbox_id != self.outbox_id:
            self._outbox.read_owner()
            return GO_ON  # the outbox was replaced; the destination still has the old id
        hold = self._metering.exhausted()
        if hold is None and upcoming.batch.rows[0].seq > self._ordered:
            hold = self._metering.refused()
        if hold is not None:
            return self._hold(hold)
        began = self._clock()
        wait = self._bucket.take(began)
        if wait:
            self._record_received()
            return Pause(wait, skippable=False)
        delivery = self.destination.send(upcoming.upload)
        self._metering.sent(_sent_bytes(upcoming.batch, delivery), began)
        self._describe(upcoming.batch, delivery, began)
        return self._conclude(upcoming.batch, delivery)

    def _describe(self, batch: Batch, delivery: Delivery, began: float) -> None:
        log.debug(
            "a request with %s events, seq %s to %s: %s, after %s ms",
            len(batch.rows),
            batch.rows[0].seq,
            batch.rows[-1].seq,
            delivery.cause or delivery.outcome.value,
            round((self._clock() - began) * 1000),
        )

    def order(self) -> None:
        """Send what is pending now, though the window is closed or the application says no.

        Raises:
            OutboxError: if the outbox could not be read.
        """
        self._forget_former_seqs()
        with self._outbox.reading() as connection:
            self._ordered = ledger.last_seq(connection)

    def _forget_former_seqs(self) -> None:
        """Note if the outbox was replaced: all events have another seq then."""
        if self._generation != self._outbox.generation:
            self._generation, self._urgent, self._ordered = self._outbox.generation, Urgent(), 0

    def checkpoint(self, *, reachable: bool) -> bool:
        """Log a checkpoint if one is due; return True if so.

        Raises:
            OutboxError: if the outbox could not be read or written.
        """
        seconds = CHECKPOINT_SECONDS if reachable else OFFLINE_SECONDS
        return self._outbox.checkpoint(seconds, HASHING_SECONDS)

    def close(self) -> None:
        """Record receipts, and close the destination."""
        try:
            self._record_received()
        except OutboxError as error:
            log.info("a receipt cannot be recorded; its events will be sent again: %s", error)
        finally:
            self.destination.close()

    def _until_open(self) -> Pause | None:
        """Return a pause if the window is closed and nothing that is pending may pass it.

        An event that may pass takes along all that were committed before it.
        """
        self._forget_former_seqs()
        self._last = None
        hold = self._metering.closed()
        if hold is None:
            return None
        with self._outbox.reading() as connection:
            connection.exec_driver_sql("BEGIN")
            urgent = self._urgent.newest(connection) if self._metering.urgent else 0
            self._last = max(urgent, self._ordered)
            passes = self._last > batches.settled_through(connection)
            pending = ledger.read(connection).pending > 0
            connection.exec_driver_sql("COMMIT")
        if self._ahead is not None and self._ahead.batch.through > self._last:
            self._ahead = None
        if passes:
            return None
        return self._hold(hold) if pending else IDLE

    def _hold(self, hold: Hold) -> Pause:
        """Send nothing for now, and let the outbox say why."""
        self._ahead = None
        self._record_received()
        if hold.pause.seconds >= _WORTH_NOTING_SECONDS:
            self._note(hold)
        if hold.pause.skippable:
            self.holds += 1  # last: a flush that sees it reads in the outbox why
        return hold.pause

    def _note(self, hold: Hold) -> None:
        now = time.time_ns() // 1_000_000
        if hold.is_trouble:
            state = sync_state.write_state(
                last_error=hold.because,
                last_error_ms=now,
                next_attempt_ms=hold.until_ms,
                paused_because=hold.because,
            )
        else:
            state = sync_state.write_wait(hold.because, hold.until_ms, held=hold.pause.skippable)
        try:
            self._outbox.run(state)  # SQLite writes nothing if it says so already
        except OutboxError as error:  # nothing is sent anyway
            log.info("the state of uploading cannot be stored: %s", error)

    def _upcoming(self, batch: Batch) -> _Upcoming:
        rows = batch.rows
        upload = Upload(
            [row.event_id for row in rows],
            [row.wire for row in rows],
            partial(self._look_ahead, batch),
        )
        return _Upcoming(batch, upload)

    def _look_ahead(self, batch: Batch) -> Upload | None:
        """Record the previous receipt and read the next batch, while `batch` awaits its receipt.

        With a server 40 ms away, a drain takes 1.1 times as long as a loop that posts prepared
        bodies; without this, 2.6 times.
        """
        try:
            self._record_received()
            if not batch.more:
                return None
            with self._outbox.reading() as connection:
                ahead = batches.next_batch(
                    connection, self._sizing.max_events, self._sizing.max_bytes, batch.through
                )
        except OutboxError as error:  # the next step fails as well and reports it
            log.info("the next batch could not be prepared in advance: %s", error)
            return None
        if not ahead.rows or ahead.damaged or ahead.outbox_id != batch.outbox_id:
            return None
        self._ahead = self._upcoming(ahead)
        return self._ahead.upload

    def _take_ahead(self) -> _Upcoming | None:
        """Return the batch that was read in advance, if it is still the next one."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with self._outbox.reading() as connection:
                before = [each.batch for each in self._received]
                if batches.is_next(connection, ahead.batch, before):
                    return ahead
        return None

    def _next_batch(self) -> Batch:
        with self._outbox.reading() as connection:
            connection.exec_driver_sql("BEGIN")  # an event that comes meanwhile is not astray
            sizing = self._sizing
            batch = batches.next_batch(
                connection, sizing.max_events, sizing.max_bytes, None, self._last
            )
            nothing = not batch.rows and not batch.damaged and self._last is None
            astray = nothing and ledger.read(connection).pending > 0
            connection.exec_driver_sql("COMMIT")
        if astray:
            log.error(
                "the outbox %s counts pending events but has none where they should begin; "
                "their place is found again from the rows",
                self._outbox.path,
            )
            self._outbox.run(settlement.recount)
        if batch.damaged:
            self._set_aside(batch)
        return batch

    def _set_aside(self, batch: Batch) -> None:
        """Make dead letters of rows that changed on disk: they must not be sent as valid events."""
        log.error(
            "%d events in the outbox no longer match their digests (seq %s …); they are kept as "
            "dead letters",
            len(batch.damaged),
            batch.damaged[0],
        )
        message = "the stored event no longer matches its digest"
        letters = [DeadLetter(seq, settlement.DAMAGED, message) for seq in batch.damaged]
        self._outbox.run(settlement.set_aside(batch, letters))

    def _conclude(self, batch: Batch, delivery: Delivery) -> Pause:
        if delivery.count is not None:
            batch = batch.first(delivery.count)
        alone = len(batch.rows) == 1
        if delivery.outcome is not Outcome.STALE:
            self._stale = False
        if delivery.outcome is Outcome.DELIVERED:
            return self._delivered(batch, delivery)
        if delivery.outcome is Outcome.INVALID:
            if alone:
                return self._refused_for_good(batch, delivery)
            self._sizing.invalid(len(batch.rows))
            return GO_ON
        if delivery.outcome is Outcome.TOO_LARGE:
            if alone:
                return self._refused_for_good(batch, delivery)
            self._sizing.too_large(batch.size)
            return GO_ON
        if delivery.outcome is Outcome.STALE and not self._stale:
            self._stale = True
            self._ahead = None
            self._record_received()
            return GO_ON  # at once: servers may close kept connections at any time
        if delivery.outcome is Outcome.TIMED_OUT:
            self._sizing.timed_out(batch.size)
        return self._failed(delivery)

    def _delivered(self, batch: Batch, delivery: Delivery) -> Pause:
        remarks = Remarks(delivery.warning, delivery.highest_seq)
        letters = letters_of(batch, delivery)
        self._settle(batch, letters, remarks, delivery.witness, delivery.skipped)
        self._sizing.passed(len(batch.rows))
        return GO_ON if batch.more else IDLE

    def _refused_for_good(self, batch: Batch, delivery: Delivery) -> Pause:
        letter = DeadLetter(batch.rows[0].seq, delivery.code, delivery.cause)
        self._settle(batch, [letter])
        self._sizing.found()
        return GO_ON

    def _settle(
        self,
        batch: Batch,
        letters: Sequence[DeadLetter],
        remarks: Remarks | None = None,
        witness: SignedHead | None = None,
        skipped: Collection[str] = (),
    ) -> None:
        self._received.append(_Received(batch, letters, remarks, frozenset(skipped), witness))
        if self._ahead is None:
            self._record_received()
        self._backoff.reset()
        self._notice.succeeded()
        if letters:
            log.warning(
                "the server permanently rejected %d event%s (%s: %s), kept as dead letters: see "
                "`tracker-sync dead list`",
                len(letters),
                "" if len(letters) == 1 else "s",
                letters[0].code,
                letters[0].message,
            )
        if self._trouble is not None:
            say = log.warning if self._trouble_said else log.info
            self._trouble, self._trouble_said = None, False
            say("uploading works again")

    def _record_received(self) -> None:
        """Record receipts; those that cannot be recorded are kept for the next attempt."""
        while self._received:
            received = self._received[0]
            self._outbox.run(settlement.settle(*received[:4]))
            del self._received[0]
            self._copies.look_at(received.batch, received.remarks, received.witness)

    def _failed(self, delivery: Delivery) -> Pause:
        self._notice.failed(delivery)
        seconds = self._backoff.pause_after(delivery)
        trouble = f"{delivery.outcome.value} {delivery.code}"
        if trouble != self._trouble:  # log a failure once, not at every attempt
            self._trouble = trouble
            is_new = self._logged.is_new(trouble)
            self._trouble_said = self._trouble_said or is_new
            say = log.warning if is_new else log.info
            say("upload failed, will retry; events are kept in the outbox: %s", delivery.cause)
        now = time.time_ns() // 1_000_000
        state = sync_state.write_state(
            last_error=delivery.cause,
            last_error_ms=now,
            next_attempt_ms=now + round(seconds * 1000),
            paused_because=delivery.cause,
        )
        self._ahead = None
        try:
            self._record_received()
            self._outbox.run(state)
        except OutboxError as error:  # the pause applies anyway
            log.info("the state of uploading cannot be stored: %s", error)
        self.failures += 1  # last: a flush that sees it reads in the outbox why
        # Unlike a busy server, a refused key does not impose a pause: a new key is tried at once.
        patience = delivery.retry_after is not None and delivery.outcome is not Outcome.REFUSED
        return Pause(seconds, skippable=not patience)

    def _end_interrupted_if_due(self) -> None:
        """End the spans of processes that died, at the start and each hour."""
        if self._clock() >= self._end_at:
            self._end_at = self._clock() + _END_SECONDS
            try:
                if number := self._outbox.end_interrupted():
                    log.info("%d spans ended with their process", number)
            except OSError as error:  # the folder cannot be read, say: uploading goes on
                log.info("spans of processes that ended cannot be looked for: %s", error)

    def _prune_if_due(self) -> None:
        if self._clock() >= self._prune_at:
            self._prune_at = self._clock() + _PRUNE_SECONDS
            self._outbox.prune()


def _sent_bytes(batch: Batch, delivery: Delivery) -> int:
    """Return how many bytes an attempt has sent, or the best that is known of it."""
    if delivery.sent_bytes is not None:
        return delivery.sent_bytes
    return batch.size if delivery.outcome is Outcome.DELIVERED else 0
