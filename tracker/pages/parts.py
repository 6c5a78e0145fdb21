"""`Parts`: figures that take long, worked out beside the pages that show them.

No page waits for one longer than a quarter of a second. What is not ready comes with a later
request; what has become old is shown until there is something newer.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WAIT_SECONDS = 0.25
"""How long a page waits for all its parts together."""
_THREADS = 2
_QUICK_SECONDS = 0.05
"""What takes no longer is worked out again whenever the source has changed."""
_TIMES = 20
"""Anything else is used for so many times as long as it took."""
_MOST_SECONDS = 60.0
"""And what no change has made old, for so long: periods end now."""
_MOST_KEPT = 200
_ENDING_SECONDS = 1.0


@dataclass
class _Kept:
    value: Any = None
    error: Exception | None = None
    ready: bool = False
    stamp: str = ""
    took: float = 0.0
    at: float = 0.0
    under_way: threading.Event | None = field(default=None)

    def is_due(self, stamp: str) -> bool:
        """Return True if it has to be worked out again for this stamp of its source."""
        if not self.ready:
            return True
        age = monotonic() - self.at
        if stamp == self.stamp:
            return age >= _MOST_SECONDS
        return self.took <= _QUICK_SECONDS or age >= _TIMES * self.took


@dataclass(frozen=True)
class Part:
    """A figure.

    Attributes:
        value: The value; None if it is not ready.
        ready: Whether there is a value, however old.
        awaited: Whether a newer one is being worked out, or will be soon.
        took: Seconds it took.
    """

    value: Any
    ready: bool
    awaited: bool
    took: float = 0.0


class Parts:
    """Works figures out on two threads, each once for everybody who wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Hashable], _Kept] = OrderedDict()
        self._versions: Counter[str] = Counter()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def version(self, whose: str) -> int:
        """Return a number that grows when a figure of a source changes."""
        with self._lock:
            return self._versions[whose]

    def get(
        self,
        whose: str,
        key: Hashable,
        make: Callable[[], Any],
        until: float,
        stamp: str = "",
    ) -> Part:
        """Return a figure, and have it worked out if it is missing or old.

        Args:
            whose: The key of its source.
            key: Which figure.
            make: Works it out; called on another thread.
            until: How long to wait for it, on the monotonic clock.
            stamp: The stamp of the source now: one that is another than before makes it old.

        Raises:
            Exception: what `make` raised.
        """
        with self._lock:
            kept = self._kept.setdefault((whose, key), _Kept())
            self._kept.move_to_end((whose, key))
            self._drop_oldest()
            if kept.is_due(stamp) and kept.under_way is None:
                kept.under_way = threading.Event()
                self._start(lambda: self._make(whose, kept, make, stamp))
            under_way = kept.under_way
        if under_way is not None:
            under_way.wait(max(until - monotonic(), 0))
        with self._lock:
            if kept.error is not None:
                raise kept.error
            awaited = kept.under_way is not None or stamp != kept.stamp
            return Part(kept.value, kept.ready, awaited, kept.took)

    def known(self, whose: str, key: Hashable) -> Part | None:
        """Return a figure if it was ever asked for; nothing is worked out."""
        with self._lock:
            kept = self._kept.get((whose, key))
            if kept is None:
                return None
            return Part(kept.value, kept.ready, kept.under_way is not None, kept.took)

    def forget(self, whose: str, key: Hashable) -> None:
        """Forget a figure, unless it is being worked out."""
        with self._lock:
            kept = self._kept.get((whose, key))
            if kept is not None and kept.under_way is None:
                del self._kept[whose, key]

    def close(self) -> None:
        """End the threads; what takes more than another second ends with the program."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._work.put(None)
        until = monotonic() + _ENDING_SECONDS
        for thread in threads:
            thread.join(max(until - monotonic(), 0))

    def _start(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        if len(self._threads) < _THREADS:
            # A daemon: the program may end while a figure is being worked out.
            thread = threading.Thread(target=self._run, name="tracker-pages", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _make(self, whose: str, kept: _Kept, make: Callable[[], Any], stamp: str) -> None:
        began, value, error = monotonic(), None, None
        try:
            value = make()
        except Exception as raised:  # noqa: BLE001 - it is raised where the figure is asked for
            error = raised
        with self._lock:
            if not kept.ready or (value, type(error)) != (kept.value, type(kept.error)):
                self._versions[whose] += 1
            done, kept.under_way = kept.under_way, None
            kept.value, kept.error, kept.ready, kept.stamp = value, error, True, stamp
            kept.at = monotonic()
            kept.took = kept.at - began
        if done is not None:
            done.set()

    def _drop_oldest(self) -> None:
        for key in [key for key, kept in self._kept.items() if kept.under_way is None]:
            if len(self._kept) <= _MOST_KEPT:
                return
            del self._kept[key]
