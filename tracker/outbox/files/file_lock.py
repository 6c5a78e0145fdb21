"""Locks between processes: ``flock`` on files beside the outbox.

The kernel releases such a lock as soon as its holder dies, for whatever reason.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import queue
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.outbox.files.lock_wait import LockFile, LockWait, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_SECONDS = 10.0
"""How long to wait for another process: a stopped one must not block everybody."""


class FileLock:
    """An exclusive lock with one holder at a time, across all processes.

    Owns one open file, opened on first use, and, from the first time that it had to wait, a thread
    that waits for the lock. It is not reentrant and not for several threads at once: its user
    serialises its threads. A forked child must call `forget`.

    An interrupted call may leave it in any state; `retire` releases it then.

    Args:
        path: The lock file, created if it does not exist.
        mark: Content to write into an empty lock file.
        like: The file whose owner and mode a new lock file gets.

    Attributes:
        patience: Seconds that `acquire` waits at most.
        held: Whether it was acquired and not released, if no call on it was interrupted.
    """

    def __init__(self, path: Path, mark: bytes = b"", like: Path | None = None) -> None:
        self.path = path
        self._path_text = str(path)
        self._like = like or path
        self._mark = mark
        self.patience = PATIENCE_SECONDS
        self._file: LockFile | None = None
        self._wait: LockWait | None = None
        self._in_vain: LockWait | None = None
        self._waits: queue.SimpleQueue[LockWait | None] | None = None
        self._retired = False
        self.held = False

    def acquire(self, before_waiting: Callable[[], bool] | None = None) -> bool:
        """Acquire the lock, waiting until it is free. The kernel serves waiters in order.

        After a wait in vain, later calls do not wait until the lock has become free.

        Args:
            before_waiting: Called if the lock is not free. If it returns False, this does so too,
                without waiting.

        Raises:
            OutboxError: if it did not become free, or the file cannot be opened.
        """
        if not self._try_now():
            in_vain = self._in_vain is not None and self._in_vain.pending
            if not (in_vain or before_waiting is None or before_waiting()):
                return False
            if in_vain or not self._await():
                raise OutboxError(
                    f"the lock {self.path} was not released within {self.patience:g} s: a process "
                    "that uses the outbox is stopped or slow. Let it continue, or end it; "
                    f"`fuser {self.path}` lists the processes that have the lock file open"
                )
        self.held = True
        return True

    @contextlib.contextmanager
    def also_held(self) -> Iterator[None]:
        """Hold the lock for the block, unless it is held already.

        Raises:
            OutboxError: as `acquire`.
        """
        held = self.held
        if not held:
            self.acquire()
        try:
            yield
        finally:
            if not held:
                self.release()

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; return True if it is now held."""
        self.held = self._try_now()
        return self.held

    def _try_now(self) -> bool:
        try:
            fcntl.flock(self._file or self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except ValueError as error:
            raise self._no_more() from error
        except OSError as error:
            if error.errno is None:  # raised by a signal handler
                raise
            raise _no_locks(self.path, error) from error
        return True

    def is_replaced(self) -> bool:
        """Return True if the file at the path is not the one that is open here.

        A lock file that was deleted or replaced excludes only those who still have it open; its
        user should `close` it and acquire the lock again.
        """
        file = self._file
        if file is None:
            return False
        try:
            return os.stat(self._path_text)[1:4] != file.mark  # noqa: PTH116 - half the time
        except (FileNotFoundError, NotADirectoryError):
            return True

    def drop_lost(self) -> None:
        """Forget a descriptor that other code in this process has closed.

        Its number may belong to another file by now, which we must not lock or close.
        """
        file = self._file
        if file is not None and file.is_lost():
            file.let_go()
            self._file, self.held = None, False

    def release(self) -> None:
        """Release the lock, if held."""
        self.held = False
        wait, file = self._wait, self._file
        if wait is not None and wait.file is not file:
            wait.give_up()
        if file is not None:
            file.free()

    def close(self) -> None:
        """Release the lock and close the file. A later `acquire` opens it again."""
        self.drop_lost()
        self.release()  # closing is not enough: a forked child may have the open file too
        if self._waits is not None:
            self._waits.put(None)
        self.forget()

    def retire(self) -> None:
        """Release the lock for good, in whatever state an interrupted call has left it.

        A call that is suspended at any line of this class then fails with an `OutboxError`. Calling
        this again is harmless.
        """
        self._retired = True
        self.drop_lost()
        self.held = False
        wait, file, waits = self._wait, self._file, self._waits
        if wait is not None and wait.file is not file:
            wait.give_up()
        if file is not None:
            file.free()
            file.discard()
        if waits is not None:
            waits.put(None)

    def successor(self) -> FileLock:
        """Return a lock on the same path, to replace this one once it is retired or forgotten."""
        fresh = FileLock(self.path, self._mark, self._like)
        fresh.patience = self.patience
        fresh._in_vain = self._in_vain
        return fresh

    def forget(self) -> None:
        """Close an inherited file in a forked child, without releasing the parent's lock."""
        self.drop_lost()
        file, self._file, self.held = self._file, None, False
        self._wait = self._in_vain = self._waits = None
        if file is not None:
            file.discard()

    def _await(self) -> bool:
        """Wait for the lock and acquire it; return False if it did not become free in time."""
        end = monotonic() + self.patience
        wait = self._begin_wait()
        try:
            granted = wait.answer(end) if self._ask(wait) else wait.poll(end)
            if granted is None:  # the thread has ended: an exception was raised in it
                self._waits = None
                wait.give_up()
                wait = self._begin_wait()
                granted = wait.poll(end)
        except BaseException:
            wait.give_up()
            raise
        if granted:
            before, self._file = self._file, wait.file
            if before is not None:
                before.discard()
            self._check_retired()
        else:
            self._in_vain = wait
            wait.give_up()
        return granted

    def _begin_wait(self) -> LockWait:
        wait = self._wait = LockWait(self._open_another())
        self._check_retired()
        return wait

    def _ask(self, wait: LockWait) -> bool:
        """Hand `wait` to the thread; return False if none can start, as at interpreter exit."""
        if self._waits is None:
            waits: queue.SimpleQueue[LockWait | None] = queue.SimpleQueue()
            try:
                # Not `threading.Thread`: its `start` waits forever if memory runs out while the
                # thread starts.
                _thread.start_new_thread(serve, (waits,))
            except RuntimeError:
                return False
            self._waits = waits
        self._waits.put(wait)
        return True

    def _open(self) -> LockFile:
        self._file = opened = self._open_another()
        self._check_retired()
        return opened

    def _check_retired(self) -> None:
        """Check, after a file was recorded and before it is locked, that `retire` has seen it."""
        if self._retired:
            self.retire()
            raise self._no_more()

    def _no_more(self) -> OutboxError:
        return OutboxError(f"another call of this thread took over the lock {self.path}")

    def _open_another(self) -> LockFile:
        try:
            opened = LockFile(ownership.open_or_create(self.path, like=self._like))
        except OSError as error:
            raise OutboxError(
                f"the lock file {self.path} cannot be opened: {error.strerror}"
            ) from error
        if self._mark and not os.fstat(opened.fileno()).st_size:
            with contextlib.suppress(OSError):  # a full disk: the lock works without the mark
                os.write(opened.fileno(), self._mark)
        return opened


def is_held(path: Path) -> bool:
    """Return True if some process holds the lock of a lock file. Creates no file.

    Raises:
        OutboxError: if the file system has no such locks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise _no_locks(path, error) from error
    finally:
        os.close(descriptor)
    return False


def _no_locks(path: Path, error: OSError) -> OutboxError:
    return OutboxError(
        f"the file {path} cannot be locked: {error.strerror}. The outbox must be on a file system "
        "with file locks, such as a local disk; set SDK_OUTBOX_PATH (outbox_path)"
    )
