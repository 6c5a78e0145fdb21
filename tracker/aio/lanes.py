"""`Lane`: daemon threads that run functions in order."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Lane:
    """Up to `most` threads that start functions in the given order; a single one runs them in turn.

    Owns its lock and its threads, each started when there is more work than threads. They are
    daemon threads, so that none delays interpreter shutdown, which would wait for a
    `concurrent.futures` executor even if that waits for the network.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._threads = 0
        self._unfinished = 0
        self._stopped = False
        self._lock = threading.RLock()  # reentrant for what interrupts its holder
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    @property
    def busy(self) -> bool:
        """Whether any submitted work is not done."""
        return self._unfinished > 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have `work` run; it must not raise. At interpreter shutdown it may run in this thread."""
        with self._lock:
            self._unfinished += 1
            if self._threads < min(self._unfinished, self._most):
                self._start()
            started = self._threads > 0
            if started:
                self._queue.put(work)
            if self._stopped:
                self._end_threads()
        if not started:
            self._do(work)

    def stop(self) -> None:
        """Let the threads end after the submitted work; further work gets a thread of its own."""
        with self._lock:
            self._stopped = True
            self._end_threads()

    def _end_threads(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # interpreter shutdown, or the system has no thread left
            return
        self._threads += 1

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            self._do(work)
            del work  # otherwise it would keep objects alive while the thread is idle

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._unfinished -= 1
