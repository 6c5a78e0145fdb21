"""`Deadlines`: time limits for the use of a connection."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from tracker import clock

if TYPE_CHECKING:
    from collections.abc import Iterator


class Deadlines:
    """Shuts down a connection whose deadline passes, so that a thread that waits gets an error.

    PostgreSQL's own time limits do not apply while a commit waits for a standby, nor if a server or
    a network does not answer at all. Unlike cancelling, this never reports a commit as done: the
    waiting thread only sees the end of the connection.

    One thread serves all deadlines; it starts with the first one and ends with the process. Any
    thread may call `within`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: dict[int, float] = {}  # descriptor -> monotonic seconds
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def within(self, descriptor: int, seconds: float) -> Iterator[None]:
        """Shut down the socket `descriptor` if the block takes longer than `seconds`."""
        # A duplicate: the number itself may be closed and used again within the block.
        own = os.dup(descriptor)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            soonest = min(self._ends.values(), default=None)
            self._ends[own] = end = clock.monotonic() + seconds
            if soonest is None or end < soonest:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(own, None)
                os.close(own)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = clock.monotonic()
                for descriptor in [number for number, end in self._ends.items() if end <= now]:
                    del self._ends[descriptor]
                    with (
                        contextlib.suppress(OSError),  # it has already ended
                        socket.socket(fileno=os.dup(descriptor)) as connection,
                    ):
                        connection.shutdown(socket.SHUT_RDWR)
                soonest = min(self._ends.values(), default=None)
                self._changed.wait(None if soonest is None else soonest - now)
