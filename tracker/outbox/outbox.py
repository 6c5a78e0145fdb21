"""`Outbox`: one SQLite file, opened once in a process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tracker import log
from tracker.errors import OutboxDamagedError, OutboxError, OutboxFullError
from tracker.health import Health
from tracker.outbox import account, replacement, retention, status, uploads
from tracker.outbox.ballast import Ballast, is_disk_full
from tracker.outbox.buffer import MemoryBuffer
from tracker.outbox.file import OutboxFile
from tracker.outbox.status import OutboxStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.outbox.writer import Transaction

T = TypeVar("T")

_SIZE_CHECK_EVERY = 64
"""Events between two looks at the outbox's size."""
_LOOK_AGAIN_SECONDS = 1.0
"""How long a full outbox is taken for full without another look."""


class Outbox(OutboxFile):
    """The durable queue between logging calls and the collector.

    Owns, in one process: the write side (`Writer`: connection, leadership, the write-lock file
    ``<outbox>.lock``), one read connection with its lock, the memory buffer, the ballast, and the
    upload lock ``<outbox>.sync-lock``, which the sync worker takes. Any thread may call any method.
    Whoever takes more than one of the locks takes the buffer's first, then leadership, then the
    reader's.

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
        self._until_size_check = 0
        self._full: OutboxFullError | None = None
        self._look_again_at = 0.0
        self.on_commit: Callable[[], None] = _nothing
        super().__init__(config, check_owner=check_owner)

    @staticmethod
    def _new_buffer(config: APIConfig) -> MemoryBuffer:
        return MemoryBuffer(config.memory_buffer_events, config.memory_buffer_bytes)

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
            if self._ballast.spent:
                self._refuse_on_full_disk()
            if self._config.max_outbox_bytes is not None:
                self._check_size()
            self._writer.append(event, lambda error: self._orphaned(event, error))
        except OutboxError as error:
            self._note_trouble(error)
            if isinstance(error, OutboxDamagedError) and self._append_anew(
                event, error, generation
            ):
                return
            if self._config.on_error == "raise":
                raise
            self._buffer.note_failure(error)
            self._buffer.hold(event)
        else:
            self.on_commit()

    def _append_anew(self, event: Event, error: OutboxDamagedError, generation: int) -> bool:
        """Store an event in a new outbox, after `error` with the one of `generation`."""
        try:
            if not self.mend(error, generation):
                return False
            self._writer.run(_append_once([event]))
        except OutboxError as again:
            self._note_trouble(again)
            return False
        self._storage_error = None
        self.on_commit()
        return True

    def _refuse_on_full_disk(self) -> None:
        """Keep new events out of the room that uploading and pruning need.

        Raises:
            OutboxError: as `on_error` has it, until there is room again.
        """
        raise OutboxError(f"the disk is full; the outbox {self.path} waits for room")

    def _note_trouble(self, error: OutboxError) -> None:
        """Have the sync thread look at once what is the matter, and `health` tell of it."""
        self._storage_error = str(error)
        self._disk_full = self._disk_full or is_disk_full(error)
        self._look_at = 0.0

    def _orphaned(self, event: Event, error: Exception) -> None:
        """Keep an event whose call has returned already, for it came inside another call."""
        self._buffer.note_failure(OutboxError(str(error)))
        self._buffer.hold(event)

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
            account.discard(transaction.connection, account.BY_BUFFER, lost)

        try:
            if self._ballast.spent:
                self._refuse_on_full_disk()
            if self._config.max_outbox_bytes is not None:
                self._check_size()
            self._writer.run(job)
        except OutboxError as error:
            self._note_trouble(error)
            self._buffer.note_failure(error)
            raise
        self._storage_error = None
        self._buffer.written(len(events), lost)

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
            return self._writer.run(job)
        except OutboxError as error:
            self._note_trouble(error)
            if isinstance(error, OutboxDamagedError):
                if not self.mend(error, generation):
                    raise
            elif not (is_disk_full(error) and self._ballast.free()):
                raise
        result = self._writer.run(job)
        if not self._buffer.in_use:
            self._storage_error = None
        return result

    def prune(self, retention_days: float) -> int:
        """Remove events delivered longer ago than `retention_days`; return how many."""
        return self._prune(time.time_ns() // 1_000_000 - int(retention_days * 86_400_000))

    def _prune(self, delivered_before_ms: int) -> int:
        removed, after = 0, 0
        while after >= 0:
            some, after = self.run(retention.prune(delivered_before_ms, after))
            removed += some
        if removed:
            self._shrink()
        return removed

    def _shrink(self) -> None:
        free = -1
        while True:
            self.run(retention.give_back_pages)
            with self.reading() as connection:
                left = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            if left in (0, free):
                return
            free = left

    def _check_size(self) -> None:
        """Keep to `max_outbox_bytes`, looking only now and then.

        Raises:
            OutboxFullError: if there is no room and the policy is to refuse.
        """
        if self._full and time.monotonic() < self._look_again_at:
            raise self._full
        if self._until_size_check > 0 and not self._full:
            self._until_size_check -= 1
            return
        self._until_size_check = _SIZE_CHECK_EVERY
        self._full = None
        if self._oversized() and not self._make_room():
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
            self._full = OutboxFullError(
                f"the outbox {self.path} has reached max_outbox_bytes "
                f"({self._config.max_outbox_bytes:,}) with undelivered events only"
            )
            raise self._full

    def _make_room(self) -> bool:
        """Remove delivered events, then what the policy gives up; tell whether there is room."""
        self._prune(retention.EVERYTHING)
        while self._oversized():
            if self._config.outbox_full == "refuse" or not self.run(retention.discard_oldest):
                return False
        return True

    def _oversized(self) -> bool:
        with self.reading() as connection:
            used = retention.used_bytes(connection)
        return used > (self._config.max_outbox_bytes or 0)

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
        if looked:
            if self._disk_full:
                self._free_space()
            if self._ballast.lay():
                self._disk_full = False
            elif self._disk_full:
                self._look_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        return looked

    def _free_space(self) -> None:
        """Remove what is delivered, and cut the log off; what cannot be done waits for more room.

        Raises:
            OutboxError: if it was not for want of room.
        """
        try:
            self._prune(retention.EVERYTHING)
            self.empty_log()
        except OutboxError as error:
            if not is_disk_full(error):
                raise

    def health(self) -> Health:
        """Return how the outbox and its uploading stand, from memory where it cannot be read."""
        error = self._storage_error
        try:
            with self.reading() as connection:
                self._last_seen = status.read(connection)
        except OutboxError as trouble:
            error = str(trouble)
        seen, buffered = self._last_seen, self._buffer
        book, sync = seen.account, seen.sync
        discarded = dict(book.discarded)
        if buffered.lost:
            overflow = discarded.get(account.BY_BUFFER, 0) + buffered.lost
            discarded[account.BY_BUFFER] = overflow
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
            damaged_sets=tuple(replacement.damaged_sets(self.path)),
        )

    def _hold(self) -> bool:
        self._buffer.lock.acquire()  # first, as everywhere: its holder may wait for the writer
        try:
            held = super()._hold()
        except BaseException:
            self._buffer.lock.release()
            raise
        if not held:
            self._buffer.lock.release()
        return held

    def resume(self) -> None:
        """End a `pause`, in the process that called it."""
        super().resume()
        self._buffer.lock.release()

    def restart_in_child(self) -> None:
        """Begin afresh in a forked child; see `OutboxFile.restart_in_child`."""
        self._buffer = self._new_buffer(self._config)
        super().restart_in_child()

    def close(self) -> None:
        """Write out what is in memory, then close connections and lock files, for good."""
        if self._closed:
            return
        try:
            self.drain_buffer()
        except OutboxError as error:
            log.error(
                "%d events that waited in memory are lost, for the outbox cannot be written: %s",
                len(self._buffer) + self._buffer.lost,
                error,
            )
        self._shut()


def _append_once(events: Sequence[Event]) -> Callable[[Transaction], None]:
    """Return the job that stores those of `events` that are not stored yet."""

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        for event in events:
            if not uploads.is_stored(connection, event.event_id):
                transaction.append(event)

    return job


def _nothing() -> None:
    """Stand in for `on_commit` until a worker listens."""
