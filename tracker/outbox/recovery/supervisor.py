"""`Supervisor`: opens an outbox, watches over its files, and replaces them if they are damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tracker import canonical, log, ownership
from tracker.clock import monotonic
from tracker.errors import ConfigurationError, OutboxDamagedError, OutboxError
from tracker.outbox.files import held_files, open_files, swap
from tracker.outbox.files.open_files import ReplacedError
from tracker.outbox.recovery import backup, damage
from tracker.outbox.recovery.rescue import Rescue
from tracker.outbox.schema import create, errors
from tracker.outbox.schema.errors import is_disk_full
from tracker.outbox.store import identity
from tracker.outbox.store.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.outbox.files.held_files import HeldFiles
    from tracker.outbox.store.connections import Connections
    from tracker.outbox.store.identity import Owner

    class KeepOut(Protocol):
        """Keeps everybody else out of the outbox."""

        def __call__(self, work: Callable[[], T]) -> T | None:
            """Run `work` while nobody else writes or reads; see `Connections.keep_out`."""


T = TypeVar("T")

_SALVAGE_SECONDS = 60.0
"""Minimum time between two salvages: a disk that damages everything should not be filled."""
_SALVAGE_AGAIN_SECONDS = 1.0
"""Minimum time after a salvage that failed."""


class Supervisor:
    """Opens the file at an outbox's path, and replaces it if it is damaged, deleted or replaced.

    Uses the connections under their locks; owns nothing except the events, in memory, that it has
    rescued from a file that is gone. A caller of `repair` or `check_files` must hold no lock of the
    outbox.

    Args:
        config: Settings: path, owner and chain key are used here.
        connections: The connections to the outbox.
        check_owner: Whether to refuse an outbox of another client id or base URL.
        keep_out: Runs work while nobody else writes or reads; see `Connections.keep_out`.
        opened: Called within `keep_out` after a file was opened.

    Attributes:
        owner: The outbox's id, and the client id and base URL that its events belong to.
        check_seconds: How often `check_files` checks that the file is still the one that is open.
    """

    check_seconds = 5.0

    def __init__(
        self, config: APIConfig, connections: Connections, *, check_owner: bool,
        keep_out: KeepOut, opened: Callable[[], None],
    ) -> None:  # fmt: skip
        self.owner: Owner
        self.check_owner = check_owner
        self._config = config
        self._path = connections.path
        self._connections = connections
        self._keep_out = keep_out
        self._opened = opened
        self._chain_key = canonical.key_bytes(config.chain_key)
        self._salvage_at = 0.0
        self._rescue = Rescue()

    # --- opening --------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file at the path, or one that replaces it if it is damaged.

        Raises:
            OutboxError: or a subclass, if that fails.
            ConfigurationError: if it belongs to another client id or base URL.
        """
        try:
            self._open_or_replace()
        except OSError as error:  # for example, its folder cannot be read
            raise errors.explain(self._path, error) from error
        # Opening it checks everything.
        self._connections.next_check_at = monotonic() + self.check_seconds

    def _open_or_replace(self) -> None:
        before = swap.file_identity(self._path)
        try:
            self._finish_interrupted_swap()
            self._open()
        except OutboxDamagedError as error:
            self._replace(error)
        except OutboxError as error:
            if before in (None, swap.file_identity(self._path)):
                raise
            # Another process replaced the file just then. It cannot while we hold the lock.
            self._replace(ReplacedError(str(error)))

    def _finish_interrupted_swap(self) -> None:
        if swap.is_interrupted(self._path):
            lock = self._connections.lock
            lock.acquire()
            try:
                swap.finish_interrupted(self._path)
            finally:
                lock.release()

    def _open(self) -> None:
        """Open the file at the path: check that it is an outbox, create or migrate it if necessary.

        Raises:
            OutboxError: or a subclass, if that fails.
            ConfigurationError: if it belongs to another client id or base URL.
        """
        try:
            create.create_file(self._path)
            file = swap.file_identity(self._path)
            if file is None:
                raise ReplacedError(
                    f"the outbox {self._path} was deleted while it was being opened"
                )
            open_files.count_opened(file, if_first=self._check)
            self.release_file()
            self._connections.file = file
            self._prepare()
            self.read_owner()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise errors.explain(self._path, error) from error
        if self.check_owner:
            identity.check(self.owner, self._config)
        self._connections.write_connection.use_file(file)
        self._connections.generation += 1
        self._opened()

    def _check(self) -> None:
        """Check that the file is a sound outbox.

        A sound log may look damaged while another process starts it over. So a log that looks
        damaged is checked again under the write lock, when nobody writes.
        """
        try:
            damage.check(self._path)
        except OutboxDamagedError:
            with self._connections.lock.also_held():
                damage.check(self._path)

    def _prepare(self) -> None:
        """Create or migrate the file if necessary."""
        if self._is_current():
            return
        with self._connections.lock.also_held():
            if not self._is_current():  # another process may have been first
                engine = self._connections.engine(writer=True)
                create.bring_up_to_date(
                    engine, self._config.client_id, self._config.destination_url
                )

    def _is_current(self) -> bool:
        with self._connections.readers.connect() as connection:
            return create.is_current(connection)

    def read_owner(self) -> None:
        """Read the owner from the file.

        Raises:
            OutboxError: if it cannot be read.
            ConfigurationError: if the file is a backup.
        """
        with self._connections.reading() as connection:
            self.owner = identity.read(connection)
            if self.check_owner:
                backup.refuse(connection, self._path)

    def release_file(self) -> None:
        """Stop counting the file as open in this process."""
        file, self._connections.file = self._connections.file, None
        if file is not None:
            open_files.count_closed(file)

    # --- checking -------------------------------------------------------------------------------

    def check_files(self, *, now: bool = False) -> bool:
        """Check that file and locks are still those that are open; repair them if they are not.

        The sync thread calls this every second. It does something every few seconds, or at once
        after an error. Returns True if it checked, and everything is or was made right.

        Raises:
            OutboxError: if the outbox cannot be written or repaired.
        """
        connections = self._connections
        in_place = connections.are_in_place()
        if not now and monotonic() < connections.next_check_at and in_place:
            return False
        if not in_place:
            connections.write_connection.look_again()
        connections.next_check_at = monotonic() + self.check_seconds
        generation = connections.generation
        connections.renew_upload_lock()
        try:
            if connections.damage is not None:
                raise connections.damage
            connections.writer.run(damage.check_in_use(self._path))
        except OutboxDamagedError as error:
            if not self.repair(error, generation):
                raise
        except OutboxError as error:
            # Old connections should not prolong the trouble; on a full disk, new ones may fail.
            if not is_disk_full(error):
                self._keep_out(connections.close_reader)
            raise
        self.store_rescued()
        return True

    def store_rescued(self) -> None:
        """Write events that were rescued from a file that is gone into the current one.

        Raises:
            OutboxError: if they cannot be written; all of them stay in memory.
        """
        self._rescue.store(self._connections.writer)

    @property
    def rescued(self) -> int:
        """How many rescued events in memory wait to be written into the current file."""
        return len(self._rescue)

    # --- replacing ------------------------------------------------------------------------------

    def repair(self, error: OutboxDamagedError, generation: int) -> bool:
        """Replace the file of `generation`, which is damaged, or open the one that replaced it.

        Returns False if that is not possible now: it was done a moment ago, it failed, or this
        thread is inside a write.
        """
        if not self._keep_out(lambda: self._repair(error, generation)):
            return False
        self.store_rescued()
        return True

    def _repair(self, error: OutboxDamagedError, generation: int) -> bool:
        try:
            if self._connections.generation == generation:  # otherwise another thread was first
                self._replace(error)
            self._connections.damage = None
        except (OutboxError, ConfigurationError, OSError) as trouble:
            if str(trouble) != str(error):
                log.error("the outbox %s cannot be replaced: %s", self._path, trouble)
            return False
        return True

    def _replace(self, error: OutboxDamagedError) -> None:
        """Replace the damaged file, or open the one at the path if it is another one.

        Raises:
            OutboxError: if no new one can be made, or not again so soon.
        """
        ownership.create_folder(self._path.parent)  # somebody may have deleted that as well
        lock = self._connections.lock
        if lock.is_replaced():
            lock.close()
        lock.drop_lost()
        lock.acquire()
        try:
            swap.finish_interrupted(self._path)
            file = self._connections.file
            if file in (None, swap.file_identity(self._path)):
                files = held_files.of(file)
                if files is not None and (files.are_lost() or not files.are_at_path()):
                    self._continue_in_copy(files, error)
                elif not isinstance(error, ReplacedError):
                    self._salvage(error)
            else:
                self._rescue_from_old_file()
            self._connections.close_reader()
            try:
                self._open()  # under the lock, so that nobody replaces it again meanwhile
            except ReplacedError:
                raise
            except OutboxDamagedError as damaged:  # what was put there is no sound outbox either
                self._salvage(damaged)
                self._open()
        finally:
            lock.release()

    def _continue_in_copy(self, files: HeldFiles, error: OutboxDamagedError) -> None:
        """Continue after log, index or descriptors were lost; see `continuation`.

        Raises:
            OutboxError: if a copy cannot be made. The connections are not changed.
        """
        from tracker.outbox.recovery import continuation  # only if files were lost

        connections = self._connections
        old = connections.write_connection.stale or connections.reader
        copied = False
        try:
            if files.lost:
                continuation.from_files(self._path)
                copied = True
            elif old is not None and not files.are_at_path(2) and continuation.belongs(files):
                continuation.from_connection(self._path, driver_of(old))
                copied = True
        except (sqlite3.Error, SQLAlchemyError, OSError) as trouble:
            if not errors.is_unreadable(trouble):
                raise OutboxError(f"{error}; it cannot be copied: {trouble}") from trouble
            self._rescue.take(self._path, old)
        connections.close_stale()
        connections.close_reader()
        if copied:
            if not files.lost:
                self._rescue_newcomers()
            continuation.put_in_place(self._path)
        log.error(
            "%s while in use. The outbox continues with everything that was stored%s",
            error,
            ", in a copy" if copied else "",
        )

    def _rescue_newcomers(self) -> None:
        """Take the events that other processes stored, with another log, after ours was lost."""
        with contextlib.suppress(SQLAlchemyError, sqlite3.Error, OSError):
            engine = self._connections.engine(writer=False)
            with engine.connect() as connection:
                self._rescue.add(connection)

    def _salvage(self, error: OutboxDamagedError) -> None:
        """Replace a damaged outbox by a new one with every row that can still be read.

        Raises:
            OutboxError: if that fails, or was done a moment ago.
        """
        from tracker.outbox.recovery import rebuild  # with its imports: only if it is damaged

        self._connections.close_reader()
        if monotonic() < self._salvage_at:
            raise error
        self._salvage_at = monotonic() + _SALVAGE_SECONDS
        config = self._config
        try:
            result = rebuild.rebuild(
                self._path,
                (self.owner.client_id, self.owner.base_url)
                if self._connections.generation
                else None,
                (config.client_id, config.destination_url) if self.check_owner else None,
                self._chain_key,
            )
        except (SQLAlchemyError, sqlite3.Error, OSError) as trouble:
            self._salvage_at = monotonic() + _SALVAGE_AGAIN_SECONDS
            raise OutboxError(f"{error}; a new one cannot be created: {trouble}") from trouble
        rebuild.log_result(self._path, result, error)

    def _rescue_from_old_file(self) -> None:
        """Take the undelivered events from the old file, which is still open here."""
        if not self._connections.generation:
            return  # it was never open: it was replaced while it was being opened
        connections = self._connections
        old = connections.write_connection.take_stale() or connections.reader
        files = held_files.of(connections.file)
        # First of all: nobody who opens the file at the path must find the old log beside it.
        swap.leave_companions(self._path, () if files is None else files.marks[1:])
        if files is not None and files.are_lost():
            old = None
        if not (swap.was_salvaged(self._path, connections.file) or self._is_continued(old)):
            self._rescue.take(self._path, old)
        if old is not None:
            old.close()

    def _is_continued(self, old: Connection | None) -> bool:
        """Return True if a copy replaced the file that was open here."""
        from tracker.outbox.recovery import continuation  # only if a file was replaced

        try:
            return continuation.goes_on_from(self._path, self.owner.outbox_id, old)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            log.info("the file that replaced the outbox cannot be read: %s", error)
            return False

    def restart_in_child(self) -> None:
        """Forget, in a forked child, the events that the parent has to write."""
        self._rescue = Rescue()
