"""Locks between processes: ``flock`` on files that lie beside the outbox.

The kernel frees such a lock the moment its owner dies, however it dies.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import queue
import sys
from typing import TYPE_CHECKING

from tracker import ownership
from tracker.clock import monotonic, sleep
from tracker.errors import ConfigurationError, OutboxError
from tracker.frames import is_executing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    raise ConfigurationError(
        "tracker needs the file locks of a POSIX system (Linux, macOS, BSD)"
    ) from None


PATIENCE_SECONDS = 10.0
"""How long a caller waits for another process: one that is stopped would hold everybody up."""
_POLL_SECONDS = 0.01
_SERVED_SECONDS = 0.25
"""How often a wait looks whether its thread is still at it."""


_lost: list[_LockFile] = []
"""Files whose descriptors another part of this process has closed: they must never be closed."""


class _LockFile(io.FileIO):
    """An open lock file.

    As an object, not as a number: a number may name another file once this one is closed. And one
    that the interpreter closes in a single step when an interrupted call no longer refers to it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "r+")
        self.mark = os.fstat(descriptor)[1:4]

    def discard(self) -> None:
        """Close it. Processes that inherited it keep it open, and keep the lock if it is held."""
        with contextlib.suppress(OSError):  # another part of the process closed it
            self.close()

    def free(self) -> None:
        """Free the lock, if it is held by this file, also for those that inherited it."""
        try:  # in half the time of `suppress`
            fcntl.flock(self, fcntl.LOCK_UN)
        except (OSError, ValueError):
            return  # closed, by us or by another part of the process, or there are no locks here

    def is_lost(self) -> bool:
        """Return True if another part of this process has closed its descriptor."""
        try:
            return os.fstat(self.fileno())[1:3] != self.mark[:2]
        except OSError:
            return True
        except ValueError:  # closed by us
            return False


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
        self._file: _LockFile | None = None
        self._wait: _Wait | None = None
        self._in_vain: _Wait | None = None
        self._waits: queue.SimpleQueue[_Wait | None] | None = None
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

    def _begin_wait(self) -> _Wait:
        wait = self._wait = _Wait(self._open_another())
        self._check_retired()
        return wait

    def _ask(self, wait: _Wait) -> bool:
        """Hand `wait` to the thread; False if there can be none, for the interpreter ends."""
        if self._waits is None:
            waits: queue.SimpleQueue[_Wait | None] = queue.SimpleQueue()
            try:
                # Not `threading.Thread`, whose `start` waits for ever if memory runs out in the
                # thread's beginning.
                _thread.start_new_thread(_wait_in_turn, (waits,))
            except RuntimeError:
                return False
            self._waits = waits
        self._waits.put(wait)
        return True

    def _open(self) -> _LockFile:
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

    def _open_another(self) -> _LockFile:
        try:
            opened = _LockFile(ownership.open_or_create(self.path, like=self._like))
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


class _Wait:
    """One wait for a lock, in another thread, so that whoever asked can give up.

    ``flock`` knows no timeout, and whoever asks again and again in place of waiting comes last,
    which makes the slowest of many processes' calls ten times as slow. Each wait has a file of its
    own: one lock must not be waited for and freed through the same. It goes to the caller with the
    lock; after `give_up`, it is freed as soon as the kernel grants it.

    Attributes:
        file: What the lock will be held by.
        pending: Whether the kernel may still grant it, though the caller has given up.
    """

    def __init__(self, file: _LockFile) -> None:
        self.file = file
        self._error: OSError | None = None
        self._answered: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._frame: FrameType | None = None  # of `run`, as long as it is under way
        self._over = self._given_up = False

    @property
    def pending(self) -> bool:
        return self._given_up and self._is_served() and not self._over

    def _is_served(self) -> bool:
        """Return True if the thread is at it: an exception raised in the thread ends that."""
        frame = self._frame
        return frame is not None and is_executing(frame)

    def run(self) -> None:
        """Wait, and hand the lock over, or free it if nobody wants it any more."""
        self._frame = sys._getframe()
        try:
            if not self._given_up:
                fcntl.flock(self.file, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        self._over = True
        if self._given_up:  # seen here or, if it comes later, by `give_up`, which then frees it
            self._free()
        self._answered.put(None)
        self._frame = None

    def answer(self, end: float) -> bool | None:
        """Return True if the lock was granted by then, None if the thread is not at it."""
        while (left := end - monotonic()) > 0:
            try:
                self._answered.get(timeout=min(left, _SERVED_SECONDS))
            except queue.Empty:
                if not (self._over or self._is_served()):
                    return None
                continue
            if self._error is not None:
                raise self._error
            return not self._given_up
        return False

    def poll(self, end: float) -> bool:
        """Do the same without a thread."""
        while not self._given_up:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= end:
                    return False
                sleep(_POLL_SECONDS)
            else:
                return True
        return False

    def give_up(self) -> None:
        """Want the lock no more, granted or not. Calling it again is harmless."""
        self._given_up = True
        if self._over or not self._is_served():
            self._free()
        self._answered.put(None)

    def _free(self) -> None:
        self.file.free()  # a forked child may have the open file too
        self.file.discard()


def _wait_in_turn(waits: queue.SimpleQueue[_Wait | None]) -> None:
    while (wait := waits.get()) is not None:
        wait.run()
