"""`Outbox`: one SQLite file, opened once in a process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from tracker import canonical, log
from tracker.clock import monotonic, sleep
from tracker.erasure import ErasureResult, subject_of
from tracker.errors import OutboxDamagedError, OutboxError
from tracker.once import Once
from tracker.outbox import status
from tracker.outbox.files import swap
from tracker.outbox.integrity import chain_key
from tracker.outbox.maintenance import erase, interrupted, retention, scrub
from tracker.outbox.maintenance.disk_space import DiskSpace
from tracker.outbox.maintenance.log_growth import LogGrowth
from tracker.outbox.maintenance.size_limit import SizeLimit
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
    from tracker.evidence.keys import Signer
    from tracker.health import Health
    from tracker.outbox.files.file_lock import FileLock
    from tracker.outbox.store.identity import Owner
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

_BETWEEN_SECONDS = 0.002
"""Pause between two jobs of hashing, in which logging calls get their turn."""


class Outbox:
    """The durable queue between logging calls and the collector.

    Any thread may call any method. What its parts own in this process: `Connections` everything
    that is open on the file, and the locks; `Intake` the memory buffer, whose lock is taken before
    all others; `Ballast` its file. `Supervisor` replaces a file that was damaged, deleted or
    replaced.

    Args:
        config: Settings; the path, durability, `on_error` and size limits are used here.
        check_owner: Whether to refuse an outbox of another client id or base URL. The commands
            for operators pass False.

    Raises:
        OutboxError: or a subclass, if the file cannot be opened or is not an outbox.
        ConfigurationError: if the outbox belongs to another client id or base URL.
    """

    def __init__(self, config: APIConfig, *, check_owner: bool = True) -> None:
        self._config = config
        self._chain_key = canonical.key_bytes(config.chain_key)
        self._trouble = StorageTrouble()
        self._last_seen = status.OutboxStatus()
        self._signer: Signer | None = None  # known when it is first needed
        self._logged = Once()
        self.connections = Connections(
            config.outbox_path, config.durability, self._chain_key, damage.LOCK_MARK
        )
        self._supervisor = Supervisor(
            config, self.connections, check_owner=check_owner,
            keep_out=self.keep_out, opened=self._begin_retention,
        )  # fmt: skip
        self._ballast = Ballast(config.outbox_path)
        self._size_limit = SizeLimit(self, config)
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
                self._create_ballast()
        except BaseException:
            self._shut()
            raise

    def _create_ballast(self) -> None:
        """Create the ballast before the first event: a job may be killed after its first second."""
        try:
            self._ballast.create()
        except OSError as error:  # its folder may not be readable
            raise errors.explain(self.path, error) from error

    def _begin_retention(self) -> None:
        self._retention = retention.Retention(self._config.retention)  # seqs start over

    def _settle_chain_key(self) -> None:
        """Store a check value of the chain key in the file, so that `verify` knows of the key.

        Events are accepted with any key, and without one: losing a key must not lose events.

        Raises:
            OutboxError: if it cannot be stored and `on_error` is ``"raise"``.
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
                log.error("the chain key's check value is not in the outbox yet: %s", error)

    # --- identity -------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.connections.path

    @property
    def owner(self) -> Owner:
        """The outbox's id, and the client id and base URL that its events belong to."""
        return self._supervisor.owner

    @property
    def generation(self) -> int:
        """How many files were opened so far; a damaged one is replaced by another."""
        return self.connections.generation

    @property
    def upload_lock(self) -> FileLock:
        """The lock that the uploading process holds."""
        return self.connections.upload_lock

    def read_owner(self) -> None:
        """Read the owner from the file again."""
        self._supervisor.read_owner()

    @property
    def on_commit(self) -> Callable[[], None]:
        """The function that is called after each commit: it wakes the sync worker."""
        return self.intake.on_commit

    @on_commit.setter
    def on_commit(self, call: Callable[[], None]) -> None:
        self.intake.on_commit = call

    # --- events, reads and jobs -----------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Store `event`. It is durable on return, unless storage failed and `on_error` degrades.

        Raises:
            OutboxError: if it could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        self.intake.append(event)

    def append_all(self, events: Sequence[Event]) -> None:
        """Store `events` in one transaction, all or none of them; otherwise like `append`.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        self.intake.append_all(events)

    def drain_buffer(self) -> None:
        """Write the events in memory to the file, if there are any.

        Raises:
            OutboxError: if storage still fails; all of them stay in memory.
        """
        self.intake.drain()

    @property
    def buffered(self) -> int:
        """How many events are in memory: because storage fails, or rescued from a deleted file."""
        return len(self.intake.buffer) + self._supervisor.rescued

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend this thread the shared read connection; see `Connections.reading`."""
        return self.connections.reading()

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Lend a separate read connection, for long reads."""
        return self.connections.snapshot()

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a write job, in a transaction that may be shared with other callers.

        On a full disk it may use the room that the ballast gives up. In a damaged outbox it is run
        again in the file that replaces it, where every event has another seq.

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
        """Return the state of the outbox and of uploading; the last known one if reading fails."""
        error = self._trouble.said or self.connections.writing_trouble()
        try:
            with self.reading() as connection:
                self._last_seen = status.read(connection)
        except OutboxError as trouble:
            error = str(trouble)
        return status.health(
            self._last_seen,
            self.intake.buffer,
            self.path,
            self._config.durability,
            error,
            rescued=self._supervisor.rescued,
        )

    # --- maintenance ----------------------------------------------------------------------------

    def maintain(self, *, now: bool = False) -> bool:
        """Check that the files are still the outbox's and intact; then make room on a full disk.

        The sync thread calls this every second; see `Supervisor.check_files`.

        Raises:
            OutboxError: if the outbox cannot be written or repaired.
        """
        try:
            checked = self._supervisor.check_files(now=now)
        except OutboxError as error:
            if not (is_disk_full(error) and self._ballast.free()):
                raise
            checked = self._supervisor.check_files(now=True)
        try:
            if checked:
                self._log_growth.check()
                self._disk_space.maintain()
        except OSError as error:  # its folder may not be readable
            raise errors.explain(self.path, error) from error
        return checked

    def repair(self, error: OutboxDamagedError, generation: int) -> bool:
        """Replace the damaged file of `generation`, and store the chain key's check value again.

        Returns False if that is not possible now; see `Supervisor.repair`.
        """
        if not self._supervisor.repair(error, generation):
            return False
        if self._supervisor.check_owner:
            try:
                self._settle_chain_key()
            except OutboxError as trouble:
                log.error("the chain key's check value is not in the new outbox yet: %s", trouble)
        return True

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Replace all data about a user by markers, and log events that name what was erased.

        This covers everything stored before the call, and the events in this process's memory.
        Other calls wait at the end, while the file is rewritten. See `erase.erase`.

        Raises:
            OutboxError: if the outbox cannot be read or written.
            ValidationError: if `said` is so long that an erasure event has no room for event ids.
            TrackerClosedError: if the outbox is closed.
        """
        self.connections.check_open()
        self._supervisor.store_rescued()
        self.drain_buffer()
        subject = subject_of(user_id)
        said = {**said, "subject": subject.digest}
        done = erase.erase(self, user_id, said, self._config.max_event_bytes)
        self.on_commit()
        scrubbed = self.scrub() and self._remove_drafts() and not self._damaged_sets_hold_more()
        return ErasureResult(*subject, done.erased, tuple(done.event_ids), scrubbed, done.guessable)

    def end_interrupted(self) -> int:
        """End the spans that were under way when their processes died; return how many.

        Raises:
            OutboxError: if the outbox cannot be read or written.
        """
        ended = 0
        for lock in interrupted.leftover(self.path):
            try:
                with self.snapshot() as connection:
                    ends = interrupted.ends(connection, lock, self._config.max_event_bytes)
                if ends:
                    self.append_all(ends)
                ended += len(ends)
                interrupted.finish(lock)
            finally:
                lock.close()
        return ended

    def checkpoint(self, seconds: float, within: float = math.inf) -> bool:
        """Log a signed head of the tree over all events, if one is due; return True if so.

        Of several threads and processes that find it due at the same time, one logs it.

        Args:
            seconds: A new event is covered after so many seconds, or with 1,000 others.
            within: How many seconds it may hash; if there is more to hash, the next call goes on.

        Raises:
            OutboxError: if the outbox cannot be read or written.
        """
        from tracker.evidence.tree import TreeError
        from tracker.outbox.integrity import checkpoint

        with self.reading() as connection:
            if not checkpoint.is_due(connection, seconds):
                return False
        end = monotonic() + within
        try:
            while not self.run(checkpoint.write(self.signer(), seconds)):
                if monotonic() >= end:
                    return False
                sleep(_BETWEEN_SECONDS)
        except TreeError as error:
            if self._logged.is_new(str(error)):
                log.error("no checkpoint of the outbox %s can be made: %s", self.path, error)
            return False
        return True

    def signer(self) -> Signer | None:
        """Return the key that signs checkpoints; None if there is none now."""
        from tracker.outbox.integrity import signing

        if self._signer is None:
            self._signer = signing.signer(self.path, self._config.signing_key, self._logged)
        return self._signer

    def note_witness(self, size: int, root: str, note: str) -> bool:
        """Store a head that the receiver has signed; return False if this outbox never had it.

        Raises:
            OutboxError: if the outbox cannot be read or written.
        """
        from tracker.evidence.tree import TreeError
        from tracker.outbox.integrity import checkpoint

        seen = checkpoint.Witness(size, root, note)
        try:
            return self.run(lambda each: checkpoint.note_witness(each.connection, seen))
        except TreeError as error:
            if self._logged.is_new(str(error)):
                log.error("a signed head of the outbox %s is not kept: %s", self.path, error)
            return True

    def renew(self, reason: str) -> None:
        """Begin a new outbox id, because another copy has sent under this one; see `renewal`.

        Raises:
            OutboxError: if the outbox cannot be written.
        """
        from tracker.outbox.integrity import renewal

        new_id = self.run(renewal.renew(reason, self._chain_key))
        if new_id is not None:
            self.read_owner()
            log.warning("the outbox %s goes on under the new outbox id %s", self.path, new_id)

    def scrub(self) -> bool:
        """Remove every trace of erased data from the files; return True if none is left."""
        return scrub.Scrubber(self.connections).leave_no_trace()

    def _remove_drafts(self) -> bool:
        """Remove copies that a process did not finish before it died; False if one remains."""
        try:
            self.run(lambda _: continuation.remove_drafts(self.path))
        except (OutboxError, OSError) as error:
            log.warning(
                "an unfinished copy of the outbox %s cannot be removed: %s", self.path, error
            )
            return False
        return True

    def _damaged_sets_hold_more(self) -> bool:
        """Return True, and log it, if there are damaged files: no erasure reaches them."""
        sets = swap.damaged_sets(self.path)
        if sets:
            log.warning(
                "erased data may still be in the damaged files that were kept; delete them: %s",
                ", ".join(map(str, sets)),
            )
        return bool(sets)

    def rewrite(self) -> bool:
        """Rewrite the file without its free pages; other calls wait meanwhile.

        Returns False, without doing anything, if this thread is inside a write.

        Raises:
            OutboxError: if the file cannot be rewritten.
        """
        try:
            return bool(self.connections.alone(scrub.rewrite))
        except (DBAPIError, OSError) as error:
            raise errors.explain(self.path, error) from error

    def prune(self, retention_days: float | None = None) -> int:
        """Remove events delivered long ago, log how many of each type, and return how many.

        What the last erasure could not scrub is scrubbed as well.

        Args:
            retention_days: Days to keep events that no rule of `APIConfig.retention` covers; the
                configured number by default.
        """
        days = self._config.retention_days if retention_days is None else retention_days
        removed = self._retention.round(self.run, days)
        if removed:
            self._size_limit.shrink()
        if removed.keys() - {retention.RETENTION_APPLIED}:  # or each report would cause another
            self.run(retention.report(removed, self._retention.days(days)))
            self.on_commit()
        self.scrub()
        return removed.total()

    def empty_log(self) -> None:
        """Checkpoint the write-ahead log and truncate it, as far as readers allow."""
        self.connections.empty_log()

    # --- pausing, forking and closing -----------------------------------------------------------

    def keep_out(self, work: Callable[[], T], patience: float = SNAPSHOT_SECONDS) -> T | None:
        """Run `work` while nobody else writes or reads; see `Connections.keep_out`."""
        with self.intake.buffer.lock:  # always taken first: its holder may wait for the writer
            return self.connections.keep_out(work, patience)

    def close_connections(self) -> None:
        """Close every connection; each is opened again when it is needed."""
        self.keep_out(self.connections.close_reader)

    def pause(self, frame: FrameType) -> bool:
        """Keep other threads out during a fork, which the call in `frame` is about to make.

        Returns False inside work that already keeps them out; see `Connections.pause`.
        """
        if not self.connections.are_in_place():
            try:
                self.maintain(now=True)
            except OutboxError as error:
                log.info("the outbox %s could not be checked before a fork: %s", self.path, error)
        return self.connections.pause(frame)

    def restart_in_child(self) -> None:
        """Start over in a forked child. The events in memory are left to the parent to write."""
        self.intake.restart_in_child()
        self._supervisor.restart_in_child()
        self.connections.restart_in_child()

    def close(self) -> None:
        """Write the events in memory; then close all connections and lock files for good."""
        if not self.connections.closed:
            self._write_out()
            self._shut()

    def rest(self) -> None:
        """Leave the files as `close` does, but stay usable: calls may come until the process ends.

        Such calls open connections again.
        """
        self._write_out()
        self.close_connections()

    def _write_out(self) -> None:
        """Write the events in memory, and record in the ledger where the chain ends."""
        if not self.intake.drain_before_close():
            return
        generation = self.generation
        try:
            if self.connections.write_connection.unanchored:
                self.connections.writer.run(lambda transaction: transaction.touch())
        except OutboxDamagedError as error:  # the last chance to save undelivered events
            self.repair(error, generation)
        except OutboxError as error:  # every event is stored; only the end is not recorded
            log.info("the end of the chain could not be recorded: %s", error)

    def _shut(self) -> None:
        self.connections.close()
        self._supervisor.release_file()
