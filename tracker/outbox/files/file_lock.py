"""Locks between processes: ``flock`` on files that lie beside the outbox.

The kernel frees such a lock the moment its owner dies, however it dies.
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
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_SECONDS = 10.0
"""How long a caller waits for another process: one that is stopped would hold everybody up."""


_lost: list[LockFile] = []
"""Files whose descriptors another part of this process has closed: they must never be closed."""


class FileLock:
    """An exclusive lock that one holder at a time has, over all processes.

    Owns one open file, opened on first use, and, from the first time that the lock was not
    free, a thread that waits for it. Not reentrant and not for several threads at once: its user
    serialises its own threads. A forked child must call `forget`.

    A call that is interrupted may leave it in any state; `retire` frees it then.

    Args:
        path: The file; it is made if it is not there.
        mark: What an empty file gets for content.
        like: The file whose owner and mode it gets.

    Attributes:
        patience: Seconds that `acquire` waits at most.
        held: Whether it was taken and not released, if nobody was interrupted at it.
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

    def acquire(self) -> None:
        """Take the lock; wait until it is free. The wait is the kernel's, first come first.

        Once it was waited for in vain, later calls do not wait until it has come free.

        Raises:
            OutboxError: if it did not come free, or the file cannot be opened.
        """
        if not (self._try_now() or self._await()):
            raise OutboxError(
                f"the lock {self.path} was not freed within {self.patience:g} s: a process "
                "that uses the outbox is stopped or takes long. Let it go on, or end it; "
                f"`fuser {self.path}` names those that have the lock file open"
            )
        self.held = True

    @contextlib.contextmanager
    def also_held(self) -> Iterator[None]:
        """Hold the lock for a while, if it is not held already.

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
        """Take the lock if it is free; return True if it is now held."""
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
        """Return True if the file at the path is another one than is open here, or none.

        A lock file that was deleted or replaced keeps apart only those who have it open still;
        its user should `close` it and take the lock once more.
        """
        file = self._file
        if file is None:
            return False
        try:
            return os.stat(self._path_text)[1:4] != file.mark  # noqa: PTH116 - half the time
        except (FileNotFoundError, NotADirectoryError):
            return True

    def drop_lost(self) -> None:
        """Forget a descriptor that another part of this process has closed.

        Its number may be another file's by now, which is not ours to lock or to close.
        """
        file = self._file
        if file is not None and file.is_lost():
            _lost.append(file)
            self._file, self.held = None, False

    def release(self) -> None:
        """Free the lock, if held."""
        self.held = False
        wait, file = self._wait, self._file
        if wait is not None and wait.file is not file:
            wait.give_up()
        if file is not None:
            file.free()

    def close(self) -> None:
        """Free the lock and close the file. A later `acquire` opens it again."""
        self.drop_lost()
        self.release()  # closing would not do: a forked child may have the open file too
        if self._waits is not None:
            self._waits.put(None)
        self.forget()

    def retire(self) -> None:
        """Free the lock for good, whatever state an interrupted call has left it in.

        A call that is suspended at any line of this class goes on with an `OutboxError`. Calling
        it again is harmless.
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
        """Return a lock on the same path, to go on with once this one is retired or forgotten."""
        fresh = FileLock(self.path, self._mark, self._like)
        fresh.patience = self.patience
        fresh._in_vain = self._in_vain
        return fresh

    def forget(self) -> None:
        """Close an inherited file in a forked child, without freeing the parent's lock."""
        self.drop_lost()
        file, self._file, self.held = self._file, None, False
        self._wait = self._in_vain = self._waits = None
        if file is not None:
            file.discard()

    def _await(self) -> bool:
        """Wait for the lock and take it; False if it did not come free in time."""
        if self._in_vain is not None and self._in_vain.pending:
            return False
        end = monotonic() + self.patience
        wait = self._begin_wait()
        try:
            granted = wait.answer(end) if self._ask(wait) else wait.poll(end)
            if granted is None:  # the thread is over: something was raised in it
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
        """Hand `wait` to the thread; False if there can be none, for the interpreter ends."""
        if self._waits is None:
            waits: queue.SimpleQueue[LockWait | None] = queue.SimpleQueue()
            try:
                # Not `threading.Thread`, whose `start` waits for ever if memory runs out in the
                # thread's beginning.
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
        """See, after a file was noted and before it is locked, that `retire` knew of it."""
        if self._retired:
            self.retire()
            raise self._no_more()

    def _no_more(self) -> OutboxError:
        return OutboxError(f"the lock {self.path} was taken over by another call of this thread")

    def _open_another(self) -> LockFile:
        try:
            opened = LockFile(ownership.open_or_create(self.path, like=self._like))
        except OSError as error:
            raise OutboxError(
                f"the lock file {self.path} cannot be opened: {error.strerror}"
            ) from error
        if self._mark and not os.fstat(opened.fileno()).st_size:
            with contextlib.suppress(OSError):  # a full disk: the lock works without
                os.write(opened.fileno(), self._mark)
        return opened


def is_held(path: Path) -> bool:
    """Return True if some process holds the lock of a lock file. Makes no file.

    Raises:
        OutboxError: if the file system knows no such locks.
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
        f"the file {path} cannot be locked: {error.strerror}. The outbox has to be on a file "
        "system with file locks, as a local disk is; set SDK_OUTBOX_PATH (outbox_path)"
    )
