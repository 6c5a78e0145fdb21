"""`SizeLimit`: keeps an outbox within `max_outbox_bytes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from tracker import log
from tracker.clock import monotonic
from tracker.errors import OutboxError, OutboxFullError
from tracker.outbox.maintenance import log_growth, retention

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.outbox.store.transaction import Transaction

T = TypeVar("T")

_CHECK_EVERY = 64
"""Events between two checks of the outbox's size."""
_FEW_BYTES = 32 * 1024 * 1024
"""Bytes in use up to which the file is rewritten instead; calls wait for that."""
_SHRINK_SECONDS = 30.0
"""How long the sync thread shrinks the file at a time, because it does not upload meanwhile."""


class Bounded(Protocol):
    """The parts of an outbox that its size limit needs."""

    @property
    def path(self) -> Path:
        """The path of the file."""

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run `job` in a write transaction."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection for a short read."""

    def empty_log(self) -> None:
        """Truncate the write-ahead log, as far as readers allow."""

    def rewrite(self) -> bool:
        """Rewrite the file without its free pages; return False if that is not possible now."""


class SizeLimit:
    """Makes room in an outbox that has reached its size limit, or reports that there is none.

    Args:
        outbox: The outbox, which owns this.
        config: Its settings; `max_outbox_bytes` and `outbox_full` are used here.

    Attributes:
        check_again_seconds: How long a full outbox is assumed to be full without another check.
        many_pages: Free pages from which on SQLite takes long to return one, because it searches a
            list of them. With 1.3 million, which are 5 GB, it returned 150 in a second.
    """

    check_again_seconds = 1.0
    many_pages = 20_000

    def __init__(self, outbox: Bounded, config: APIConfig) -> None:
        self._outbox = outbox
        self._most = config.max_outbox_bytes
        self._refuses = config.outbox_full == "refuse"
        self._until_check = 0
        self._full: OutboxFullError | None = None
        self._check_again_at = 0.0

    def check(self, events: int) -> None:
        """Check that there is room for the given number of events; reads the size only sometimes.

        Raises:
            OutboxFullError: if there is none and the policy is to refuse.
        """
        if self._full and monotonic() < self._check_again_at:
            raise self._full
        if self._until_check > 0 and not self._full:
            self._until_check -= events
            return
        self._until_check = _CHECK_EVERY - (events - 1)
        self._full = None
        why = self._find_out_why_full()
        if why is not None:
            self._check_again_at = monotonic() + self.check_again_seconds
            self._full = OutboxFullError(
                f"the outbox {self._outbox.path} has reached max_outbox_bytes ({self._most:,}) "
                + why
            )
            raise self._full

    def _find_out_why_full(self) -> str | None:
        """Make room if necessary; return what fills the outbox if that was not enough."""
        if self._oversized() and not self._make_room():
            return "with undelivered events only"
        log = log_growth.excess(self._outbox.path)
        if log and self._used() + log > (self._most or 0):
            self._outbox.empty_log()  # its reader may have finished
            if log_growth.excess(self._outbox.path):
                return (
                    f"with {log:,} bytes of write-ahead log, which SQLite keeps for a program that "
                    f"reads an old state; {log_growth.describe_readers(self._outbox.path)}"
                )
        return None

    def _make_room(self) -> bool:
        """Remove delivered events, then apply the policy; return True if there is room now."""
        self.free_delivered()
        while self._oversized():
            if self._refuses or not self._outbox.run(retention.discard_oldest):
                return False
        return True

    def _oversized(self) -> bool:
        return self._used() > (self._most or 0)

    def _used(self) -> int:
        with self._outbox.reading() as connection:
            return retention.used_bytes(connection)

    def free_delivered(self) -> None:
        """Remove all delivered events that may be removed, and shrink the file."""
        removed, after = 0, 0
        while after >= 0:
            some, after = self._outbox.run(retention.free_delivered(after))
            removed += some
        if removed:
            self.shrink()

    def shrink(self) -> None:
        """Return the file's free pages to the file system, as many as possible in limited time."""
        before, end = -1, monotonic() + _SHRINK_SECONDS
        while monotonic() < end:
            with self._outbox.reading() as connection:
                free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
                used = retention.used_bytes(connection)
            if free in (0, before):
                return
            if before < 0 and free > self.many_pages and used < _FEW_BYTES and self._rewrite():
                return
            before = free
            self._outbox.run(retention.give_back_pages)

    def _rewrite(self) -> bool:
        """Rewrite the file without its free pages; return True if that succeeded."""
        try:
            return self._outbox.rewrite()
        except OutboxError as error:
            log.info("the outbox cannot be rewritten, and shrinks slowly: %s", error)
            return False
