"""Imports that a thread makes late, and that neither a fork nor the interpreter's end may cut off.

In a forked child, a module that another thread was importing would stay incomplete forever. At the
end of the interpreter, Python up to 3.13 ends a daemon thread by unwinding its stack; modules in
Rust or C++ do not allow that, and abort the process. Both happen while such a module is imported,
since that runs Python, where the thread may have to stop.
"""

from __future__ import annotations

import atexit
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracker import forks

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAIT_SECONDS = 10.0
"""Neither a fork, nor the end of the interpreter, nor an import waits longer."""
_LAST_SECONDS = 0.5
"""How long an import waits once the interpreter ends: an older exit handler may wait for it."""

_lock = threading.RLock()  # reentrant: an import may import, and a signal handler may interrupt it
_held: list[threading.RLock] = []
_ending = False


@contextmanager
def whole() -> Iterator[None]:
    """Keep forks and the end of the interpreter waiting while the block imports.

    Once the interpreter ends, the block waits, so that its thread ends here. If the process goes on
    nevertheless, the block does too, half a second later, and others after it need not wait.
    """
    global _lock, _ending
    lock = _lock
    held = lock.acquire(timeout=_LAST_SECONDS if _ending else _WAIT_SECONDS)
    if not held and _ending:
        _lock, _ending = threading.RLock(), False
    try:
        yield
    finally:
        if held:
            lock.release()


def _end() -> None:
    """Wait for imports, and let no other thread begin one. The lock stays held."""
    global _ending
    _ending = True
    _lock.acquire(timeout=_WAIT_SECONDS)


def _before_fork() -> None:
    lock = _lock
    if lock.acquire(timeout=_WAIT_SECONDS):
        _held.append(lock)


def _after_fork_in_parent() -> None:
    if _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    global _lock, _ending
    _lock, _ending = threading.RLock(), False
    _held.clear()


# The newest exit handler runs first. That of `tracker.client` lets sync threads come to rest, for
# which they may need an import, so it imports this module.
atexit.register(_end)
forks.around(_before_fork, _after_fork_in_parent)
forks.in_child(forks.Stage.IMPORTS, _after_fork_in_child)
