"""`OldReaders`: keeps the write-ahead log small beside programs that read an old state for long."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker import log
from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.outbox import copying, open_files, pages

if TYPE_CHECKING:
    from tracker.outbox.file import OutboxFile

LARGE_LOG_BYTES = 24 * 1024 * 1024
"""A log of this size was not begun anew for long: usually it is begun anew at 4 MB."""
_LOOK_EVERY = 64
"""Appends between two looks at the log's size: about 1 MB of log."""
_PATIENCE_MS = 250
"""How long calls wait at most for short reads to end, so that the log can be cut off."""
_MOST_LEFT = 3
"""Old files that readers may hold at once: each takes up as much of the disk as the outbox did."""
_REST = 10.0
"""Times the last copying's duration that pass before the next: it takes a tenth of the time."""
_LEAST_REST_SECONDS = 1.0
_JOIN_SECONDS = 5.0


class OldReaders:
    """Leaves readers behind that keep SQLite from beginning its log anew; see `copying`.

    Only the process that holds the upload lock does so. Owns a thread while there is something to
    do, which is not the sync thread because that may wait for a server meanwhile; and a descriptor
    of each old file that a reader may still have.

    Args:
        outbox: The outbox, which owns this.
    """

    def __init__(self, outbox: OutboxFile) -> None:
        self._outbox = outbox
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._looking = threading.Lock()  # one thread at a time looks; the others need not
        self._until_look = 0
        self._rest_until = 0.0
        self._copy: copying.Copy | None = None
        self._left: list[int] = []
        self._file: tuple[tuple[int, int], int] | None = None  # the one in use, once it was opened
        self._said: str | None = None
        self._warned = self._tidied = False

    def appended(self, events: int) -> None:
        """Count events; look at the log now and then. Costs next to nothing."""
        self._until_look -= events
        if self._until_look <= 0:
            self.look()

    def look(self) -> None:
        """See whether the log has grown large; if so, have a thread deal with it."""
        self._until_look = _LOOK_EVERY
        if not (self._outbox.upload_lock.held and self._looking.acquire(blocking=False)):
            return
        try:
            self._look()
        except OSError as error:  # no matter of the call that happened to look
            log.info("the log of the outbox %s cannot be looked at: %s", self._outbox.path, error)
        finally:
            self._looking.release()

    def _look(self) -> None:
        if not self._tidied:
            self._tidied = True
            self.tidy()
        large = pages.log_bytes(self._outbox.path) >= LARGE_LOG_BYTES
        if not large:
            self._said = None
        if self._left or large:
            self._deal(large=large)

    def tidy(self) -> bool:
        """Remove what a process has left that died while it copied; tell whether nothing is left.

        A copy in the making goes too, and is made again.
        """
        path = self._outbox.path

        def remove() -> bool:
            copying.remove_leftovers(path)
            return False

        try:
            if copying.leftovers(path):
                self._outbox.exchange(remove)
        except OutboxError as error:
            log.warning("what is left of a copy of the outbox %s stays: %s", path, error)
        return not copying.leftovers(path)

    def _deal(self, *, large: bool) -> None:
        for descriptor in [each for each in self._left if not copying.is_read(each)]:
            self._left.remove(descriptor)  # in place: the other thread may append one meanwhile
            os.close(descriptor)
        busy = self._thread is not None and self._thread.is_alive()
        if busy or self._stopping or monotonic() < self._rest_until:
            return
        if large:
            thread = threading.Thread(target=self._run, name="tracker-copy", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter ends
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        began = monotonic()
        try:
            self._outbox.empty_log(_PATIENCE_MS)
            if pages.log_bytes(self._outbox.path) >= LARGE_LOG_BYTES:
                self._leave_behind()
        except (OutboxError, OSError, SQLAlchemyError) as error:
            self._say(f"it cannot be copied to a new file: {error}")
        took = monotonic() - began
        self._rest_until = monotonic() + max(_REST * took, _LEAST_REST_SECONDS)

    def _leave_behind(self) -> None:
        """Put a copy of the outbox in its place."""
        outbox = self._outbox
        if len(self._left) >= _MOST_LEFT:
            self._say(f"{_MOST_LEFT} old files of it are still being read, so none is left behind")
            return
        if outbox.read_at_length:
            return  # a copy of what may be gigabytes would be made in vain
        grown, began = pages.log_bytes(outbox.path), monotonic()
        descriptor = self._descriptor()
        if descriptor is None:
            return
        copy = self._copy = copying.Copy(outbox.path, descriptor)
        try:
            if not copy.make(lambda: self._stopping):
                self._say("the disk has no room for a copy of it")
            elif outbox.exchange(copy.put_in_place):
                self._file = None
                self._left.append(descriptor)
                say = log.info if self._warned else log.warning
                self._warned = True
                say(
                    "another program reads an old state of the outbox %s, and its log had grown to "
                    "%d MB. A copy took the outbox's place, in %.1f s; that program goes on with "
                    "the old file, whose room is freed when it ends",
                    outbox.path,
                    grown // 1_000_000,
                    monotonic() - began,
                )
        finally:
            self._copy = None
            copy.remove()

    def _descriptor(self) -> int | None:
        """Return a descriptor of the file in use; None if that is no longer at the path."""
        file = self._outbox.file
        if self._file is not None and self._file[0] != file:
            self._let_go()
        if self._file is None and file is not None:
            opened = os.open(self._outbox.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(opened)
            self._file = (status.st_dev, status.st_ino), opened
        return self._file[1] if self._file is not None and self._file[0] == file else None

    def _let_go(self) -> None:
        held, self._file = self._file, None
        if held is not None:
            open_files.close_after(*held)

    def _say(self, why: str) -> None:
        if self._said is None and not self._stopping:
            log.warning(
                "another program reads an old state of the outbox %s, so that its log grows with "
                "each event until that read ends (`fuser %s` names who has the file open); %s",
                self._outbox.path,
                self._outbox.path,
                why,
            )
        self._said = why

    def restart_in_child(self) -> None:
        """Forget, in a forked child, the parent's thread and descriptors."""
        for descriptor in [*self._left, *([self._file[1]] if self._file else [])]:
            os.close(descriptor)
        if self._copy is not None:
            self._copy.forget()
        self._begin_afresh()

    def close(self) -> None:
        """Have the thread end, and let go of the old files."""
        self._stopping = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)
        self._let_go()
        if self._looking.acquire(timeout=_JOIN_SECONDS):  # for good: nobody is to look any more
            for descriptor in self._left:
                os.close(descriptor)
            self._left.clear()
