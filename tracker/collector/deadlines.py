"""`Deadlines`: a bound on how long one connection may be at something."""

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
    """Cuts a connection whose deadline passes, so that whoever waits at it gets an error.

    PostgreSQL's own time limits do not hold while a commit waits for a standby, nor for a server or
    a network that says nothing at all. Cutting, unlike cancelling, leaves no commit that is
    reported as done: the connection's end is all that the waiting side hears.

    One thread serves all; it starts with the first deadline and ends with the process. Any thread
    may call `within`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: dict[int, float] = {}  # descriptor -> monotonic seconds
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def within(self, descriptor: int, seconds: float) -> Iterator[None]:
        """Cut the socket `descriptor` if the block takes longer than `seconds`."""
        # A duplicate: the number itself may be closed within the block, and be another's by then.
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
                        contextlib.suppress(OSError),  # it has ended by itself
                        socket.socket(fileno=os.dup(descriptor)) as connection,
                    ):
                        connection.shutdown(socket.SHUT_RDWR)
                soonest = min(self._ends.values(), default=None)
                self._changed.wait(None if soonest is None else soonest - now)
