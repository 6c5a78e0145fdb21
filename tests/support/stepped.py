"""`Caller`: a thread that makes one call and goes on line by line, as a test says."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from tests.support.raising import Struck, at_each_line

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCKED_SECONDS = 0.02
"""How long a step may take before the thread counts as one that waits for another.

On a machine so loaded that a step takes longer, the thread goes on unobserved, and a model that
relies on it is out of step.
"""


class Caller:
    """A thread that makes one call, and stops before each line of it until it may go on.

    Args:
        call: The call; what it returns is kept.
        files: Where it stops.

    Attributes:
        returned: What the call returned.
        raised: What it raised.
        struck: Whether it was struck.
        over: Set when the call has ended.
    """

    def __init__(self, call: Callable[[], str], files: tuple[str, ...]) -> None:
        self._make, self._files = call, files
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._free = False
        self.returned: str | None = None
        self.raised: BaseException | None = None
        self.struck = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._await_stop()

    def order(self, what: str) -> bool:
        """Have it run to the next line, be struck there, or go on to its end.

        Returns False if it does not stop there: it waits for another one, or has ended.
        """
        self._orders.put(what)
        return self._await_stop()

    def _await_stop(self) -> bool:
        try:
            self._stops.get(timeout=_BLOCKED_SECONDS)
        except queue.Empty:
            return False
        return True

    def _at_line(self) -> None:
        if self._free:
            return
        self._stops.put(None)
        order = self._orders.get()
        self._free = order == "free"
        if order == "strike":
            self.struck = True
            raise Struck

    def _run(self) -> None:
        try:
            with at_each_line(self._files, self._at_line):
                self.returned = self._make()
        except BaseException as error:  # noqa: BLE001 - judged by the machine
            self.raised = error
        self.over.set()
        self._stops.put(None)
        while self._orders.get() != "end":  # a thread lives on after a call that was interrupted
            pass
