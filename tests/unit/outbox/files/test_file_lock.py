"""File locks between real processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tracker.errors import OutboxError
from tracker.outbox.files.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from tracker.outbox.files.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


def is_held(lock: FileLock) -> bool:
    return lock.held  # by a function, lest mypy believes that it cannot change


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@contextmanager
def holder(path: Path, *, when_told: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run a process that takes the lock, at once or when told to, and frees it when told to."""
    program = ("import sys; sys.stdin.readline()\n" if when_told else "") + HOLDER
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def lock_on(path: Path) -> Iterator[FileLock]:
    lock = FileLock(path)
    try:
        yield lock
    finally:
        lock.close()


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """While another process holds the lock it cannot be had; afterwards it can."""
    path = tmp_path / "lock"
    with lock_on(path) as lock, holder(path) as other:
        assert says(other) == "held"
        assert not lock.try_acquire()
        assert not is_held(lock)
        tell(other)
        assert says(other) == "released"
        assert lock.try_acquire()
        assert is_held(lock)
        assert lock.try_acquire(), "asking again for what is held is no failure"


def test_acquire_waits_until_the_holder_lets_go(tmp_path: Path) -> None:
    """`acquire` blocks until the holder lets go."""
    path = tmp_path / "lock"
    with lock_on(path) as lock, holder(path) as other:
        assert says(other) == "held"
        waiting = threading.Thread(target=lock.acquire)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        tell(other)
        waiting.join(10)
        assert not waiting.is_alive()
        assert is_held(lock)


def test_a_killed_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    """No lease to wait out: the kernel frees what SIGKILL left behind."""
    path = tmp_path / "lock"
    with lock_on(path) as lock, holder(path) as other:
        assert says(other) == "held"
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        assert lock.try_acquire()


def test_a_stopped_holder_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """The wait has an end, the next ones are none, and when the holder goes on so does all."""
    path = tmp_path / "lock"
    with lock_on(path) as lock, holder(path) as other:
        assert says(other) == "held"
        other.send_signal(signal.SIGSTOP)
        lock.patience = 0.1
        with pytest.raises(OutboxError, match="was not released within"):
            lock.acquire()
        lock.patience = 30
        began = time.monotonic()
        with pytest.raises(OutboxError, match="Let it continue, or end it"):
            lock.acquire()
        assert time.monotonic() - began < 10
        assert not is_held(lock)
        other.send_signal(signal.SIGCONT)
        tell(other)
        assert says(other) == "released"
        take(lock)
        with lock_on(path) as third:
            assert not third.try_acquire(), "it is held, whatever was given up before"
            lock.release()
            assert third.try_acquire(), "and free again: the wait given up keeps nothing"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_during_a_vain_wait_keeps_nothing(tmp_path: Path) -> None:
    """A child that inherits a wait given up does not hold the lock that comes of it."""
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    with lock_on(path) as lock, holder(path) as other:
        assert says(other) == "held"
        lock.patience = 0.1
        with pytest.raises(OutboxError):
            lock.acquire()
        child = os.fork()
        if child == 0:
            os.close(writer)
            lock.forget()
            os.read(reader, 1)
            os._exit(0)
        tell(other)
        assert says(other) == "released"
        take(lock)
        with lock_on(path) as third:
            lock.release()
            assert third.try_acquire()
        os.close(writer)
        os.waitpid(child, 0)
    os.close(reader)


def take(lock: FileLock) -> None:
    """Take the lock as soon as the wait that was given up has ended too."""
    for _ in range(1_000):
        with contextlib.suppress(OutboxError):
            lock.acquire()
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came free")


def test_ctrl_c_ends_a_wait(tmp_path: Path) -> None:
    """And the lock that the kernel grants afterwards goes back at once."""
    path = tmp_path / "lock"
    with lock_on(path) as lock, holder(path) as other, ctrl_c():
        assert says(other) == "held"
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
        tell(other)
        assert says(other) == "released"
        with lock_on(path) as third:
            third.acquire()


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, whatever a command run in this process has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_that_forgets_leaves_the_parents_lock(tmp_path: Path) -> None:
    """And it cannot take that lock for itself while the parent holds it."""
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    with lock_on(path) as lock, holder(path, when_told=True) as probe:
        lock.acquire()
        child = os.fork()
        if child == 0:
            lock.forget()
            os.write(writer, b"1" if lock.try_acquire() else b"0")
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 1) == b"0"
        tell(probe)
        assert probe.stdout is not None
        assert not select.select([probe.stdout], [], [], 0.2)[0], "the lock came free"
        lock.release()
        assert says(probe) == "held"
    os.close(reader)
    os.close(writer)


def test_a_closed_lock_can_be_taken_again(tmp_path: Path) -> None:
    """The file is opened anew when it is needed."""
    with lock_on(tmp_path / "lock") as lock, lock_on(tmp_path / "lock") as other:
        lock.acquire()
        lock.close()
        assert not is_held(lock)
        assert other.try_acquire()
        other.release()
        lock.acquire()
        assert not other.try_acquire()


def test_the_lock_file_is_for_this_user_alone(tmp_path: Path) -> None:
    """Another user who could open it could also hold it for ever."""
    with lock_on(tmp_path / "lock") as lock:
        lock.acquire()
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("obstacle", ["folder", "link", "missing folder"])
def test_a_lock_file_that_cannot_be_opened_is_an_outbox_error(
    tmp_path: Path, obstacle: str
) -> None:
    """By name, and nothing is written through a planted link."""
    path = tmp_path / "lock"
    target = tmp_path / "target"
    if obstacle == "folder":
        path.mkdir()
    elif obstacle == "link":
        path.symlink_to(target)
    else:
        path = tmp_path / "missing" / "lock"
    with pytest.raises(OutboxError, match=r"the lock file .*lock cannot be opened: "):
        FileLock(path).acquire()
    assert not target.exists()
