"""`Outbox`: one SQLite file, opened once in a process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from tracker import canonical, log
from tracker.clock import monotonic, sleep
from tracker.erasure import ErasureResult, subject_of
from tracker.errors import OutboxDamagedError, OutboxError
from tracker.health import Health
from tracker.outbox import status
from tracker.outbox.files import paths, swap
from tracker.outbox.integrity import chain_key
from tracker.outbox.maintenance import erase as erasing
from tracker.outbox.maintenance import retention
from tracker.outbox.maintenance import scrub as scrub_module
from tracker.outbox.maintenance.log_growth import LogGrowth
from tracker.outbox.maintenance.size_limit import SizeBound
from tracker.outbox.recovery import continuation
from tracker.outbox.recovery.supervisor import SNAPSHOT_SECONDS, OutboxFile
from tracker.outbox.schema import errors
from tracker.outbox.schema.errors import is_disk_full
from tracker.outbox.status import OutboxStatus
from tracker.outbox.store import ledger
from tracker.outbox.store.ballast import Ballast
from tracker.outbox.store.memory_buffer import MemoryBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

_SLOW_SECONDS = 0.9
"""How long a call may wait to be written before `health` says so."""
_LOOK_AGAIN_SECONDS = 1.0
"""How soon a full disk is looked at again."""


class Outbox(OutboxFile):
    """The durable queue between logging calls and the collector.

    Owns, in one process: the write side (`GroupCommit` and `WriteConnection`: leadership, the
    connection, the write-lock file ``<outbox>.lock``), one read connection with its lock, the
    memory buffer, the ballast, and the upload lock ``<outbox>.sync-lock``, which the sync worker
    takes. Any thread may call any method. Whoever takes more than one of the locks takes the
    buffer's first, then leadership, then the reader's.

    Args:
        config: Settings; the path, durability, `on_error` and bounds are used here.
        check_owner: False opens an outbox that belongs to another client id or base URL too, as
            operators' commands do.

    Raises:
        OutboxError: or one of its kinds, if the file cannot be opened or is not an outbox.
        ConfigurationError: if the outbox belongs to another client id or base URL.
    """

    def __init__(self, config: APIConfig, *, check_owner: bool = True) -> None:
        self._buffer = self._new_buffer(config)
        self._ballast = Ballast(config.outbox_path)
        self._disk_full = False
        self._storage_error: str | None = None
        self._last_seen = OutboxStatus()
        self._bound = SizeBound(self, config)
        self._log_growth = LogGrowth(config.outbox_path)
        self.on_commit: Callable[[], None] = _nothing
        super().__init__(config, check_owner=check_owner)
        if check_owner:
            try:
                self._settle_chain_key()
            except BaseException:
                self._shut()
                raise

    @staticmethod
    def _new_buffer(config: APIConfig) -> MemoryBuffer:
        return MemoryBuffer(config.memory_buffer_events, config.memory_buffer_bytes)

    def _open(self) -> None:
        super()._open()
        self.retention = retention.Retention(self._config.retention)  # seqs begin anew

    def mend(self, error: OutboxDamagedError, generation: int) -> bool:
        """Begin anew as `OutboxFile.mend`; the new outbox knows of the chain key too."""
        if not super().mend(error, generation):
            return False
        if self._check_owner_too:
            try:
                self._settle_chain_key()
            except OutboxError as trouble:
                log.error("the new outbox does not know of its chain key yet: %s", trouble)
        return True

    def _settle_chain_key(self) -> None:
        """Note the chain key's check value in the file, so that `verify` knows of the key.

        Events are taken with any key and without: a lost key must not cost any.

        Raises:
            OutboxError: if that cannot be, and `on_error` is ``"raise"``.
        """
        with self.reading() as connection:
            remembered = chain_key.read(connection)
        chain_key.warn(self.path, self._chain_key, remembered)
        if self._chain_key is not None and remembered.check != canonical.key_check(self._chain_key):
            try:
                self.run(chain_key.remember(self._chain_key))
            except OutboxError as error:
                if self._config.on_error == "raise":
                    raise
                log.error("the outbox does not know of its chain key yet: %s", error)

    def append(self, event: Event) -> None:
        """Store `event`; on return it is durable, unless storage failed and `on_error` bears it.

        Raises:
            OutboxError: if it could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        generation = self.generation
        try:
            if self._buffer.in_use:
                if not self._buffer.should_retry():
                    self._buffer.hold(event)
                    return
                self.drain_buffer()
            self._see_to_room(1)
            self._writer.append(event)
        except OutboxError as error:
            self._bear([event], error, generation)
        else:
            self._stored()

    def append_all(self, events: Sequence[Event]) -> None:
        """Store `events` in one transaction, all or none of them; otherwise as `append`.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        generation = self.generation
        if self._buffer.in_use and not self._buffer.should_retry():
            self._keep(events)
            return
        try:
            self.drain_buffer()
            self._see_to_room(len(events))
            self._writer.append_all(events)
        except OutboxError as error:
            self._bear(events, error, generation)
        else:
            self._stored()

    def _stored(self) -> None:
        """Do what follows each append that succeeded."""
        if self._storage_error is not None:
            self._note_success()
        self.on_commit()

    def _see_to_room(self, events: int) -> None:
        """Keep new events out of the room that uploading and pruning need, on disk and in the file.

        Raises:
            OutboxError: as long as there is no room.
        """
        if self._ballast.spent:
            raise OutboxError(f"the disk is full; the outbox {self.path} waits for room")
        self._bound.check(events)

    def _bear(self, events: Sequence[Event], error: OutboxError, generation: int) -> None:
        """Do what `on_error` says with events that could not be stored, if no new outbox helps."""
        self._note_trouble(error)
        if isinstance(error, OutboxDamagedError) and self._append_anew(events, error, generation):
            return
        if self._config.on_error == "raise":
            raise error
        self._buffer.note_failure(error)
        self._keep(events)

    def _append_anew(
        self, events: Sequence[Event], error: OutboxDamagedError, generation: int
    ) -> bool:
        """Store events in a new outbox, after `error` with the one of `generation`."""
        try:
            if not self.mend(error, generation):
                return False
            self._writer.run(_append_once(events))
        except OutboxError as again:
            self._note_trouble(again)
            return False
        self._storage_error = None
        self.on_commit()
        return True

    def _keep(self, events: Sequence[Event]) -> None:
        for event in events:
            self._buffer.hold(event)

    def _note_trouble(self, error: OutboxError) -> None:
        """Have the sync thread look at once what is the matter, and `health` tell of it."""
        self._storage_error = str(error)
        self._disk_full = self._disk_full or is_disk_full(error)
        self._look_at = 0.0

    def _note_success(self) -> None:
        """Have `health` tell of no trouble, unless events still wait for its end."""
        if not (self._buffer.in_use or self._ballast.spent):
            self._storage_error = None

    def drain_buffer(self) -> None:
        """Write what waits in memory, if anything does.

        Raises:
            OutboxError: if storage still fails; everything waits on.
        """
        if self._buffer.in_use:
            with self._buffer.lock:  # whoever comes meanwhile waits, and so keeps its order
                if self._buffer.in_use:
                    self._drain_buffer()

    def _drain_buffer(self) -> None:
        events, lost = self._buffer.held()

        def job(transaction: Transaction) -> None:
            # An earlier drain may have been interrupted just after its commit.
            _append_once(events)(transaction)
            ledger.discard(transaction.connection, ledger.BY_BUFFER, lost)

        try:
            self._see_to_room(len(events))
            self._writer.run(job)
        except OutboxError as error:
            self._note_trouble(error)
            self._buffer.note_failure(error)
            raise
        self._storage_error = None
        self._buffer.written(events, lost)

    @property
    def buffered(self) -> int:
        """Events that wait in memory because storage fails."""
        return len(self._buffer)

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a write job in a transaction of its own or shared with others'.

        On a full disk it may use the ballast's room, and in a damaged outbox it is run again in the
        new one that takes its place, where every event has another seq.

        Raises:
            OutboxError: if it could not be committed; then nothing of it is stored.
        """
        generation = self.generation
        try:
            result = self._writer.run(job)
        except OutboxError as error:
            self._note_trouble(error)
            if isinstance(error, OutboxDamagedError):
                if not self.mend(error, generation):
                    raise
            elif not (is_disk_full(error) and self._ballast.free()):
                raise
            result = self._writer.run(job)
        self._note_success()
        return result

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Replace all data about a user by markers, and log events that name what was erased.

        Whatever was stored before the call, events in this process's memory included. In chunks:
        logging calls wait for one of them at most, and at the end while the file is written anew.
        Cut off at any point, what was erased is named; call again for the rest.

        Args:
            user_id: The user.
            said: Further fields of the erasure events: the reason.

        Raises:
            OutboxError: if the outbox cannot be read or written.
            ValidationError: if `said` leaves an event no room.
            TrackerClosedError: if the outbox is closed.
        """
        self._check_open()
        self._rescued.store(self._writer)
        self.drain_buffer()
        with self.snapshot() as connection:
            found = erasing.find(connection, user_id)
        erased, named_by = 0, []
        for job in erasing.jobs(found, user_id, said, self._config.max_event_bytes):
            count, event_id = self.run(job)
            erased += count
            named_by.append(event_id)
        self.on_commit()
        scrubbed = self.scrub() and self._remove_drafts() and not self._damaged_sets_hold_more()
        return ErasureResult(subject_of(user_id), erased, tuple(named_by), scrubbed)

    def _remove_drafts(self) -> bool:
        """Remove copies that a process which died had begun; return False if one stays."""
        try:
            self.run(lambda _: continuation.remove_drafts(self.path))
        except (OutboxError, OSError) as error:
            log.warning("a copy of the outbox %s that was left stays: %s", self.path, error)
            return False
        return True

    def _damaged_sets_hold_more(self) -> bool:
        """Tell whether damaged files lie aside, which no erasure reaches; say so."""
        sets = swap.damaged_sets(self.path)
        if sets:
            log.warning(
                "what was erased may still be in the damaged files that were kept aside; delete "
                "them: %s",
                ", ".join(map(str, sets)),
            )
        return bool(sets)

    def scrub(self) -> bool:
        """Leave no trace of what was erased in the files, if any is left; tell whether it is so.

        Nobody can write meanwhile. Programs that read an old state are waited for, some seconds.
        """
        with self.reading() as connection:
            if not scrub_module.due(connection):
                return True
        end = monotonic() + scrub_module.PATIENCE_SECONDS
        try:
            while not (done := self._alone(scrub_module.scrub)):
                if done is None or monotonic() >= end:
                    log.warning(
                        "traces of erased events stay in the log of the outbox %s until no program "
                        "reads an old state of it; it is tried again",
                        self.path,
                    )
                    return False
                sleep(scrub_module.RETRY_SECONDS)
        except (DBAPIError, OSError, OutboxError) as error:
            log.warning(
                "traces of erased events stay in the outbox's files; it is tried again: %s",
                errors.explain(self.path, error),
            )
            return False
        return True

    def _alone(self, work: Callable[[Connection], T]) -> T | None:
        """Run `work` outside of any transaction while nobody writes.

        Returns None, having done nothing, when this thread is inside a write already.

        Raises:
            ReplacedError: if the file at the path is another one.
        """
        return self._writer.alone(lambda: self._write_connection.alone(work))

    def rewrite(self) -> bool:
        """Write the file anew, so that it takes no more room than it needs; calls wait meanwhile.

        Returns False, having done nothing, inside a write of this thread.

        Raises:
            OutboxError: if it cannot be.
        """
        try:
            return bool(self._alone(scrub_module.rewrite))
        except (DBAPIError, OSError) as error:
            raise errors.explain(self.path, error) from error

    def prune(self, retention_days: float | None = None) -> int:
        """Remove events delivered long ago, log how many of each type, and return how many.

        What the last erasure could not scrub is scrubbed too.

        Args:
            retention_days: Days to keep what no rule of `APIConfig.retention` says more of; by
                default the configured ones.
        """
        config = self._config
        days = config.retention_days if retention_days is None else retention_days
        removed = self.retention.round(self.run, days)
        if removed:
            self._bound.shrink()
        if removed.keys() - {retention.RETENTION_APPLIED}:  # or one report would bring the next
            self.run(retention.report(removed))
            self.on_commit()
        self.scrub()
        return removed.total()

    def look(self, *, now: bool = False) -> bool:
        """Look at the files as `OutboxFile.look`; then, on a full disk, for room.

        Raises:
            OutboxError: if the outbox cannot be written, or not be mended.
        """
        try:
            looked = super().look(now=now)
        except OutboxError as error:
            if not (is_disk_full(error) and self._ballast.free()):
                raise
            looked = super().look(now=True)
        try:
            if looked:
                self._log_growth.look()
                self._look_for_room()
        except OSError as error:  # its folder may be forbidden
            raise errors.explain(self.path, error) from error
        return looked

    def _look_for_room(self) -> None:
        if self._disk_full:
            self._free_space()
        if self._ballast.lay():
            self._disk_full = False
        elif self._disk_full:
            self._look_at = monotonic() + _LOOK_AGAIN_SECONDS

    def _free_space(self) -> None:
        """Remove what is delivered, and cut the log off; what cannot be done waits for more room.

        Raises:
            OutboxError: if it was not for want of room.
        """
        try:
            self._bound.free_delivered()
            self.empty_log()
        except OutboxError as error:
            if not is_disk_full(error):
                raise

    def _writing_trouble(self) -> str | None:
        """Return what keeps a call waiting that came more than a second ago, if one does."""
        since = self._writer.waiting_since()
        if since is None or (waited := monotonic() - since) < _SLOW_SECONDS:
            return None
        return (
            f"an event has waited {waited:.1f} s to be written: another process holds the lock "
            f"{self._lock.path}, or the disk does not answer"
        )

    def health(self) -> Health:
        """Return how the outbox and its uploading stand, from memory where it cannot be read."""
        error = self._storage_error or self._writing_trouble()
        try:
            with self.reading() as connection:
                self._last_seen = status.read(connection)
        except OutboxError as trouble:
            error = str(trouble)
        seen, buffered = self._last_seen, self._buffer
        book, sync = seen.account, seen.sync
        discarded = dict(book.discarded)
        if buffered.lost:
            overflow = discarded.get(ledger.BY_BUFFER, 0) + buffered.lost
            discarded[ledger.BY_BUFFER] = overflow
        age = None
        if seen.oldest_pending_ms is not None:
            age = max(0.0, time.time() - seen.oldest_pending_ms / 1000)
        return Health(
            durability=self._config.durability,
            pending=book.pending,
            oldest_pending_age=age,
            in_memory=len(buffered),
            accepted=book.accepted + buffered.lost,
            delivered=book.delivered,
            dead=book.dead,
            discarded=discarded,
            last_success_ms=sync.last_success_ms,
            last_error=sync.last_error,
            last_error_ms=sync.last_error_ms,
            paused_because=sync.paused_because if book.pending else None,
            storage_error=error,
            log_bytes=paths.log_bytes(self.path),
            damaged_sets=tuple(swap.damaged_sets(self.path)),
        )

    def keep_out(self, work: Callable[[], T], patience: float = SNAPSHOT_SECONDS) -> T | None:
        """Do as `OutboxFile.keep_out`; the memory buffer rests too."""
        with self._buffer.lock:  # first, as everywhere: its holder may wait for the writer
            return super().keep_out(work, patience)

    def restart_in_child(self) -> None:
        """Begin afresh in a forked child; see `OutboxFile.restart_in_child`."""
        self._buffer = self._new_buffer(self._config)
        super().restart_in_child()

    def close(self) -> None:
        """Write out what is in memory, then close connections and lock files, for good."""
        if not self._closed:
            self._write_out()
            self._shut()

    def rest(self) -> None:
        """Leave the files as `close` does, and stay usable: calls may come until the process ends.

        They open connections anew.
        """
        self._write_out()
        self.close_connections()

    def _write_out(self) -> None:
        try:
            self._drain_at_last()
        except OutboxError as error:
            log.error(
                "%d events that waited in memory are lost, for the outbox cannot be written: %s",
                len(self._buffer) + self._buffer.lost,
                error,
            )
        else:
            self._anchor()

    def _drain_at_last(self) -> None:
        generation = self.generation
        try:
            self.drain_buffer()
        except OutboxDamagedError as error:  # or another process put a new file at the path
            if not self.mend(error, generation):
                raise
            self.drain_buffer()

    def _anchor(self) -> None:
        generation = self.generation
        try:
            if self._write_connection.unanchored:
                self._writer.run(lambda transaction: transaction.connection)
        except OutboxDamagedError as error:  # the last chance to save what is not delivered
            self.mend(error, generation)
        except OutboxError as error:  # what is stored is stored; only its end is not noted
            log.info("where the outbox ends could not be noted: %s", error)


def _append_once(events: Sequence[Event]) -> Callable[[Transaction], None]:
    """Return the job that stores those of `events` that are not stored yet."""

    def job(transaction: Transaction) -> None:
        for event in events:
            transaction.append_missing(event)

    return job


def _nothing() -> None:
    """Stand in for `on_commit` until a worker listens."""
