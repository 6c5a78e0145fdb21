"""Locks between processes: ``flock`` on files that lie beside the outbox.

The kernel frees such a lock the moment its owner dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.clock import monotonic, sleep
from tracker.errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    raise ConfigurationError(
        "tracker needs the file locks of a POSIX system (Linux, macOS, BSD)"
    ) from None


PATIENCE_SECONDS = 10.0
"""How long a caller waits for another process: one that is stopped would hold everybody up."""
_POLL_SECONDS = 0.01


class FileLock:
    """An exclusive lock that one holder at a time has, over all processes.

    Owns one file descriptor, opened on first use, and, from the first time that the lock was not
    free, a thread that waits for it. Not reentrant and not for several threads at once: its user
    serialises its own threads. A forked child must call `forget`.

    Args:
        path: The file; it is made if it is not there.
        mark: What an empty file gets for content.
        like: The file whose owner and mode it gets.

    Attributes:
        patience: Seconds that `acquire` waits at most.
    """

    def __init__(self, path: Path, mark: bytes = b"", like: Path | None = None) -> None:
        self.path = path
        self._like = like or path
        self._mark = mark
        self.patience = PATIENCE_SECONDS
        self._path_text = str(path)
        self._descriptor: int | None = None
        self._mark_of: tuple[int, ...] = ()
        self._wait: _Wait | None = None
        self._waits: queue.SimpleQueue[_Wait | None] | None = None
        self.held = False

    def acquire(self) -> None:
        """Take the lock; wait until it is free. The wait is the kernel's, first come first.

        Once it was waited for in vain, later calls do not wait until it has come free.

        Raises:
            OutboxError: if it did not come free, or the file cannot be opened.
        """
        try:
            _flock(self.path, self._descriptor or self._open())
        except BlockingIOError:
            if not self._await():
                raise OutboxError(
                    f"the lock {self.path} was not freed within {self.patience:g} s: a process "
                    "that uses the outbox is stopped or takes long. Let it go on, or end it; "
                    f"`fuser {self.path}` names those that have the lock file open"
                ) from None
        self.held = True

    def try_acquire(self) -> bool:
        """Take the lock if it is free; tell whether it is now held."""
        if not self.held:
            try:
                _flock(self.path, self._open())
            except BlockingIOError:
                return False
            self.held = True
        return True

    def is_replaced(self) -> bool:
        """Tell whether the file at the path is another one than is open here, or none.

        A lock file that was deleted or replaced keeps apart only those who have it open still;
        its user should `close` it and take the lock anew.
        """
        if self._descriptor is None:
            return False
        try:
            return os.stat(self._path_text)[1:4] != self._mark_of  # noqa: PTH116 - half the time
        except (FileNotFoundError, NotADirectoryError):
            return True

    def drop_lost(self) -> None:
        """Forget a descriptor that another part of this process has closed.

        Its number may be another file's by now, which is not ours to lock or to close.
        """
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.fstat(self._descriptor)[1:3] == self._mark_of[:2]:
                    return
            self._descriptor, self.held = None, False

    def release(self) -> None:
        """Free the lock, if held."""
        held, self.held = self.held, False
        if self._wait is not None and self._wait.descriptor != self._descriptor:
            self._wait.give_up()
        if self._descriptor is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            except OSError as error:
                # Where the file system knows no locks, none was taken; one whose descriptor another
                # part of this process has closed is free.
                if held and error.errno != errno.EBADF:
                    raise

    def close(self) -> None:
        """Free the lock and close the file. A later `acquire` opens it again."""
        self.drop_lost()
        self.release()  # closing would not do: a forked child may have the open file too
        if self._waits is not None:
            self._waits.put(None)
        self.forget()

    def forget(self) -> None:
        """Close an inherited descriptor in a forked child, without freeing the parent's lock."""
        self.drop_lost()
        descriptor, self._descriptor, self.held = self._descriptor, None, False
        self._wait = self._waits = None
        if descriptor is not None:
            os.close(descriptor)

    def _await(self) -> bool:
        """Wait for the lock and take it; False if it did not come free in time."""
        if self._wait is not None and self._wait.pending:
            return False
        self._wait = wait = _Wait(self._open_another())
        try:
            if not self._ask(wait):
                return wait.poll(self.patience) and self._adopt(wait)
            return wait.answer(self.patience) and self._adopt(wait)
        finally:
            if wait.descriptor != self._descriptor:
                wait.give_up()

    def _ask(self, wait: _Wait) -> bool:
        """Hand `wait` to the thread; False if there can be none, for the interpreter ends."""
        if self._waits is None:
            waits: queue.SimpleQueue[_Wait | None] = queue.SimpleQueue()
            thread = threading.Thread(
                target=_wait_in_turn, args=(waits,), name="tracker-lock", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return False
            self._waits = waits
        self._waits.put(wait)
        return True

    def _adopt(self, wait: _Wait) -> bool:
        before, self._descriptor = self._descriptor, wait.descriptor
        self._mark_of = os.fstat(wait.descriptor)[1:4]
        if before is not None:
            os.close(before)
        return True

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = self._open_another()
            self._mark_of = os.fstat(self._descriptor)[1:4]
        return self._descriptor

    def _open_another(self) -> int:
        try:
            opened = ownership.open_or_create(self.path, like=self._like)
        except OSError as error:
            raise OutboxError(
                f"the lock file {self.path} cannot be opened: {error.strerror}"
            ) from error
        if self._mark and not os.fstat(opened).st_size:
            with contextlib.suppress(OSError):  # a full disk: the lock works without
                os.write(opened, self._mark)
        return opened


def _flock(path: Path, descriptor: int) -> None:
    """Take the lock without waiting.

    Raises:
        BlockingIOError: if it is not free.
        OutboxError: if the file system knows no such locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OutboxError(
            f"the file {path} cannot be locked: {error.strerror}. The outbox has to be on a file "
            "system with file locks, as a local disk is; set SDK_OUTBOX_PATH (outbox_path)"
        ) from error


class _Wait:
    """One wait for a lock, in another thread, so that whoever asked can give up.

    ``flock`` knows no timeout, and whoever asks again and again in place of waiting comes last,
    which makes the slowest of many processes' calls ten times as slow. Each wait has a descriptor
    of its own: one lock must not be waited for and freed through the same. It goes to the caller
    with the lock; after `give_up`, the thread closes it when the kernel grants it.

    Attributes:
        pending: Whether the kernel may still grant it, though the caller has given up.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = False
        self._error: OSError | None = None
        self._answered: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._settled = threading.Lock()  # whoever takes it first, thread or caller, decides
        self._given_up = False

    def run(self) -> None:
        """Wait, and hand the lock over, or free it if nobody wants it any more."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        if self._settled.acquire(blocking=False):
            self._answered.put(None)
        else:
            self._free()

    def answer(self, timeout: float) -> bool:
        """Tell whether the lock was granted within so many seconds."""
        try:
            self._answered.get(timeout=timeout)
        except queue.Empty:
            return False
        if self._error is not None:
            raise self._error
        return True

    def poll(self, timeout: float) -> bool:
        """Do the same without a thread."""
        end = monotonic() + timeout
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= end:
                    self._settled.acquire(blocking=False)
                    return False
                sleep(_POLL_SECONDS)
            else:
                return True

    def give_up(self) -> None:
        """Want the lock no more, granted or not."""
        if self._given_up:
            return
        self.pending = True
        if self._settled.acquire(blocking=False):
            self._given_up = True
            return
        self._given_up = True
        self._free()

    def _free(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # a forked child may have the open file too
        os.close(self.descriptor)
        self.pending = False


def _wait_in_turn(waits: queue.SimpleQueue[_Wait | None]) -> None:
    while (wait := waits.get()) is not None:
        wait.run()
