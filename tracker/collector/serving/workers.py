"""`Workers`: processes that share a listening socket, and the one that owns them."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING

import click

from tracker import clock

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_RESTART_SECONDS = 1.0
"""How long to wait before a worker is replaced that had not begun to accept requests."""


class Workers:
    """Forks processes that do the same work, and replaces one that dies.

    This process does nothing else and has no threads, so that a fork is safe at any time. It must
    be in the main thread. Workers notice when it dies: then their end of a pipe becomes readable.

    Args:
        count: How many there are.
        work: Called in each with its number from 0 on, the descriptor of that pipe, and a function
            to call when it accepts requests. It returns after SIGTERM.
        stop_seconds: How long they may take to end; then they are killed.
        died: Called in this process with the pid of one that has died.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, int, Callable[[], None]], None],
        stop_seconds: float,
        died: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._count = count
        self._work = work
        self._stop_seconds = stop_seconds
        self._died = died
        self._running: dict[int, _Worker] = {}  # by pid
        self._missing: dict[int, float] = {}  # number -> when to start it
        self._signals: list[int] = []
        self._owned, self._owner = os.pipe()
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)

    def run(self, started: Callable[[], None]) -> int:
        """Run until SIGTERM or SIGINT; return the exit code.

        Args:
            started: Called when all accept requests.
        """
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, lambda received, _: self._signals.append(received))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes this process
        try:
            code = self._start()
            if code is None:
                started()
                self._supervise()
                code = 0
        finally:
            self._stop()
        return code

    def _start(self) -> int | None:
        """Start all, the first one alone; return the exit code if one could not, or None."""
        for number in range(self._count):
            worker = self._fork(number)
            while not worker.is_ready() and not self._signals:
                if worker.pid in (ended := self._reap()):
                    return ended[worker.pid] or 1
                self._sleep(None, worker)
        return 0 if self._signals else None

    def _supervise(self) -> None:
        while not self._signals:
            self._reap()
            now = clock.monotonic()
            for number, when in [*self._missing.items()]:
                if when <= now:
                    self._fork(number)
            soonest = min(self._missing.values(), default=None)
            self._sleep(None if soonest is None else soonest - now)

    def _stop(self) -> None:
        """End all that are left: first in order, then by force; so at once at a second signal."""
        self._send(signal.SIGTERM)
        end, seen = clock.monotonic() + self._stop_seconds, len(self._signals)
        while self._running:
            self._reap()
            left = end - clock.monotonic()
            if left <= 0 or self._signals[seen:].count(signal.SIGINT):
                self._send(signal.SIGKILL)
                left = 1.0
            if self._running:
                self._sleep(left)

    def _send(self, number: int) -> None:
        for pid in self._running:
            os.kill(pid, number)

    def _fork(self, number: int) -> _Worker:
        ready, readied = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that came in between would be lost to both.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        pid = os.fork()
        if not pid:
            os.close(ready)
            self._become(number, readied)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        os.close(readied)
        self._missing.pop(number, None)
        self._running[pid] = worker = _Worker(pid, number, ready)
        return worker

    def _become(self, number: int, readied: int) -> None:
        """Do the work in a process that was just forked, and end it."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in _ENDING:
                # The server replaces them while it runs, and then raises the signal again.
                signal.signal(each, lambda *_: sys.exit(0))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            os.close(self._owner)
            self._work(number, self._owned, lambda: _tell(readied))
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except BaseException:
            logger.exception("worker %d failed", os.getpid())
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> dict[int, int]:
        """Note the workers that have ended, each to be replaced; return their exit codes by pid.

        That of a signal is negative.
        """
        ended = {}
        for pid in [*self._running]:
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            worker = self._running.pop(pid)
            pause = 0.0 if worker.is_ready() else _RESTART_SECONDS
            worker.close()
            self._died(pid)
            self._missing[worker.number] = clock.monotonic() + pause
            ended[pid] = code = os.waitstatus_to_exitcode(status)
            if not self._signals:
                logger.error("worker %d ended with %d", pid, code)
        return ended

    def _sleep(self, seconds: float | None, worker: _Worker | None = None) -> None:
        """Wait for a signal, or until a worker is ready."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if worker is not None:
            poll.register(worker.ready, select.POLLIN)
        poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)


class _Worker:
    def __init__(self, pid: int, number: int, ready: int) -> None:
        self.pid = pid
        self.number = number
        self.ready = ready
        self._is_ready = False
        os.set_blocking(ready, False)

    def is_ready(self) -> bool:
        """Return True if it has said that it accepts requests."""
        if not self._is_ready:
            with contextlib.suppress(BlockingIOError):
                self._is_ready = bool(os.read(self.ready, 1))
        return self._is_ready

    def close(self) -> None:
        os.close(self.ready)


def _tell(readied: int) -> None:
    os.write(readied, b".")
    os.close(readied)
