"""`Outbox`: one SQLite file, opened once in a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from tracker import canonical, log
from tracker.erasure import ErasureResult, subject_of
from tracker.errors import OutboxDamagedError, OutboxError
from tracker.outbox import status
from tracker.outbox.files import swap
from tracker.outbox.integrity import chain_key
from tracker.outbox.maintenance import erase, retention, scrub
from tracker.outbox.maintenance.disk_space import DiskSpace
from tracker.outbox.maintenance.log_growth import LogGrowth
from tracker.outbox.maintenance.size_limit import SizeBound
from tracker.outbox.recovery import continuation, damage
from tracker.outbox.recovery.supervisor import Supervisor
from tracker.outbox.schema import errors
from tracker.outbox.schema.errors import is_disk_full
from tracker.outbox.store.ballast import Ballast
from tracker.outbox.store.connections import SNAPSHOT_SECONDS, Connections
from tracker.outbox.store.intake import Intake
from tracker.outbox.store.trouble import StorageTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import FrameType

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.health import Health
    from tracker.outbox.files.file_lock import FileLock
    from tracker.outbox.store.identity import Owner
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")


class Outbox:
    """The durable queue between logging calls and the collector.

    Any thread may call any method. Its parts own, in one process: `Connections` what is open of the
    file, with its locks; `Intake` the memory buffer, whose lock comes before all others; `Ballast`
    its file. `Supervisor` replaces the file where it is damaged, deleted or replaced.

    Args:
        config: Settings; the path, durability, `on_error` and bounds are used here.
        check_owner: False opens an outbox that belongs to another client id or base URL too, as
            operators' commands do.

    Raises:
        OutboxError: or one of its kinds, if the file cannot be opened or is not an outbox.
        ConfigurationError: if the outbox belongs to another client id or base URL.
    """

    def __init__(self, config: APIConfig, *, check_owner: bool = True) -> None:
        self._config = config
        self._chain_key = canonical.key_bytes(config.chain_key)
        self._trouble = StorageTrouble()
        self._last_seen = status.OutboxStatus()
        self.connections = Connections(
            config.outbox_path, config.durability, self._chain_key, damage.LOCK_MARK
        )
        self._supervisor = Supervisor(
            config, self.connections, check_owner=check_owner,
            keep_out=self.keep_out, opened=self._begin_retention,
        )  # fmt: skip
        self._ballast = Ballast(config.outbox_path)
        self._size_limit = SizeBound(self, config)
        self.intake = Intake(
            config,
            self.connections,
            self,
            self._ballast,
            self._trouble,
            None if config.max_outbox_bytes is None else self._size_limit.check,
        )
        self._log_growth = LogGrowth(config.outbox_path)
        self._disk_space = DiskSpace(
            self.connections, self._ballast, self._trouble, self._size_limit
        )
        try:
            self._supervisor.open()
            if check_owner:
                self._settle_chain_key()
        except BaseException:
            self._shut()
            raise

    def _begin_retention(self) -> None:
        self._retention = retention.Retention(self._config.retention)  # seqs start over

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

    # --- what it is -----------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.connections.path

    @property
    def owner(self) -> Owner:
        """Whose outbox it is."""
        return self._supervisor.owner

    @property
    def generation(self) -> int:
        """How many files were opened here; another one may take the place of a damaged one."""
        return self._supervisor.generation

    @property
    def upload_lock(self) -> FileLock:
        """Held by the process that uploads."""
        return self.connections.upload_lock

    def read_owner(self) -> None:
        """Read again whose outbox it is."""
        self._supervisor.read_owner()

    @property
    def on_commit(self) -> Callable[[], None]:
        """What is called after each commit: it wakes the sync worker."""
        return self.intake.on_commit

    @on_commit.setter
    def on_commit(self, call: Callable[[], None]) -> None:
        self.intake.on_commit = call

    # --- events, reads and jobs -----------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Store `event`; on return it is durable, unless storage failed and `on_error` degrades.

        Raises:
            OutboxError: if it could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        self.intake.append(event)

    def append_all(self, events: Sequence[Event]) -> None:
        """Store `events` in one transaction, all or none of them; otherwise as `append`.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        self.intake.append_all(events)

    def drain_buffer(self) -> None:
        """Write what waits in memory, if anything does.

        Raises:
            OutboxError: if storage still fails; everything waits on.
        """
        self.intake.drain()

    @property
    def buffered(self) -> int:
        """Events that wait in memory because storage fails."""
        return len(self.intake.buffer)

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend the read connection to this thread; see `Connections.reading`."""
        return self.connections.reading()

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a read connection of the caller's own, for long reads."""
        return self.connections.snapshot()

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a write job in a transaction of its own or shared with others'.

        On a full disk it may use the ballast's room, and in a damaged outbox it is run again in the
        new one that takes its place, where every event has another seq.

        Raises:
            OutboxError: if it could not be committed; then nothing of it is stored.
        """
        generation = self.generation
        try:
            result = self.connections.writer.run(job)
        except OutboxError as error:
            self.intake.note_trouble(error)
            if isinstance(error, OutboxDamagedError):
                if not self.repair(error, generation):
                    raise
            elif not (is_disk_full(error) and self._ballast.free()):
                raise
            result = self.connections.writer.run(job)
        self.intake.note_success()
        return result

    def health(self) -> Health:
        """Return how the outbox and its uploading stand, from memory where it cannot be read."""
        error = self._trouble.said or self.connections.writing_trouble()
        try:
            with self.reading() as connection:
                self._last_seen = status.read(connection)
        except OutboxError as trouble:
            error = str(trouble)
        durability = self._config.durability
        return status.health(self._last_seen, self.intake.buffer, self.path, durability, error)

    # --- maintenance ----------------------------------------------------------------------------

    def maintain(self, *, now: bool = False) -> bool:
        """See that the files are the outbox's own and sound; then look for room on a full disk.

        For the sync thread to call every second; see `Supervisor.look`.

        Raises:
            OutboxError: if the outbox cannot be written, or not be repaired.
        """
        try:
            looked = self._supervisor.look(now=now)
        except OutboxError as error:
            if not (is_disk_full(error) and self._ballast.free()):
                raise
            looked = self._supervisor.look(now=True)
        try:
            if looked:
                self._log_growth.look()
                self._disk_space.look()
        except OSError as error:  # its folder may be forbidden
            raise errors.explain(self.path, error) from error
        return looked

    def repair(self, error: OutboxDamagedError, generation: int) -> bool:
        """Replace the damaged file of `generation`; the new one knows of the chain key too.

        Returns False if that cannot be done now; see `Supervisor.repair`.
        """
        if not self._supervisor.repair(error, generation):
            return False
        if self._supervisor.check_owner:
            try:
                self._settle_chain_key()
            except OutboxError as trouble:
                log.error("the new outbox does not know of its chain key yet: %s", trouble)
        return True

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Replace all data about a user by markers, and log events that name what was erased.

        Whatever was stored before the call, events in this process's memory included. Calls wait at
        the end, while the file is rewritten. See `erase.erase`.

        Raises:
            OutboxError: if the outbox cannot be read or written.
            ValidationError: if `said` leaves an event no room.
            TrackerClosedError: if the outbox is closed.
        """
        self.connections.check_open()
        self._supervisor.store_rescued()
        self.drain_buffer()
        erased, named_by = erase.erase(self, user_id, said, self._config.max_event_bytes)
        self.on_commit()
        scrubbed = self.scrub() and self._remove_drafts() and not self._damaged_sets_hold_more()
        return ErasureResult(subject_of(user_id), erased, tuple(named_by), scrubbed)

    def scrub(self) -> bool:
        """Leave no trace of what was erased in the files; return True if none is left."""
        return scrub.leave_no_trace(self.connections)

    def _remove_drafts(self) -> bool:
        """Remove copies that a process which died had begun; return False if one stays."""
        try:
            self.run(lambda _: continuation.remove_drafts(self.path))
        except (OutboxError, OSError) as error:
            log.warning("a copy of the outbox %s that was left stays: %s", self.path, error)
            return False
        return True

    def _damaged_sets_hold_more(self) -> bool:
        """Return True, and say so, if damaged files lie aside, which no erasure reaches."""
        sets = swap.damaged_sets(self.path)
        if sets:
            log.warning(
                "what was erased may still be in the damaged files that were kept aside; delete "
                "them: %s",
                ", ".join(map(str, sets)),
            )
        return bool(sets)

    def rewrite(self) -> bool:
        """Rewrite the file, so that it takes no more room than it needs; calls wait meanwhile.

        Returns False, having done nothing, inside a write of this thread.

        Raises:
            OutboxError: if it cannot be.
        """
        try:
            return bool(self.connections.alone(scrub.rewrite))
        except (DBAPIError, OSError) as error:
            raise errors.explain(self.path, error) from error

    def prune(self, retention_days: float | None = None) -> int:
        """Remove events delivered long ago, log how many of each type, and return how many.

        What the last erasure could not scrub is scrubbed too.

        Args:
            retention_days: Days to keep what no rule of `APIConfig.retention` says more of; by
                default the configured ones.
        """
        days = self._config.retention_days if retention_days is None else retention_days
        removed = self._retention.round(self.run, days)
        if removed:
            self._size_limit.shrink()
        if removed.keys() - {retention.RETENTION_APPLIED}:  # or one report would bring the next
            self.run(retention.report(removed))
            self.on_commit()
        self.scrub()
        return removed.total()

    def empty_log(self) -> None:
        """Write the log into the file and cut it off, as far as readers allow."""
        self.connections.empty_log()

    # --- pausing, forking and closing -----------------------------------------------------------

    def keep_out(self, work: Callable[[], T], patience: float = SNAPSHOT_SECONDS) -> T | None:
        """Run `work` while nobody writes or reads; see `Connections.keep_out`."""
        with self.intake.buffer.lock:  # first, as everywhere: its holder may wait for the writer
            return self.connections.keep_out(work, patience)

    def close_connections(self) -> None:
        """Close every connection; they are opened again when they are needed."""
        self.keep_out(self.connections.close_all)

    def pause(self, frame: FrameType) -> bool:
        """Keep everybody out for a fork, which the call of `frame` is about to make.

        Returns False inside work that keeps everybody out; see `Connections.pause`.
        """
        if not self.connections.are_in_place():
            try:
                self.maintain(now=True)
            except OutboxError as error:
                log.info("the outbox %s could not be looked at before a fork: %s", self.path, error)
        return self.connections.pause(frame)

    def restart_in_child(self) -> None:
        """Start over in a forked child. What waits in memory stays the parent's to write."""
        self.intake.restart_in_child()
        self._supervisor.restart_in_child()
        self.connections.restart_in_child()

    def close(self) -> None:
        """Write out what is in memory, then close connections and lock files, for good."""
        if not self.connections.closed:
            self._write_out()
            self._shut()

    def rest(self) -> None:
        """Leave the files as `close` does, and stay usable: calls may come until the process ends.

        They open connections again.
        """
        self._write_out()
        self.close_connections()

    def _write_out(self) -> None:
        """Write what is in memory, and note in the account where the outbox ends."""
        if not self.intake.drain_at_last():
            return
        generation = self.generation
        try:
            if self.connections.write_connection.unanchored:
                self.connections.writer.run(lambda transaction: transaction.touch())
        except OutboxDamagedError as error:  # the last chance to save what is not delivered
            self.repair(error, generation)
        except OutboxError as error:  # what is stored is stored; only its end is not noted
            log.info("where the outbox ends could not be noted: %s", error)

    def _shut(self) -> None:
        self.connections.close()
        self._supervisor.leave_file()
