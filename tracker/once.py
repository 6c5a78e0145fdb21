"""`Once`: whether a problem is new, so that it is logged once and not at every occurrence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Once:
    """Remembers keys. Any thread may use it; it takes no lock.

    Args:
        seconds: A key counts as new again so many seconds after it was new. Default: never.
        most: Number of keys remembered; the oldest is forgotten first. With 1, a key counts as
            new whenever it differs from the previous one.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self,
        *,
        seconds: float = math.inf,
        most: int = 1_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._since: dict[Hashable, list[float]] = {}

    def is_new(self, key: Hashable = None) -> bool:
        """Return True if `key` is new, and remember it. Of several threads, only one gets True."""
        now = self._clock()
        since = self._since.get(key)
        if since is not None and now - since[0] >= self._seconds:
            self._since.pop(key, None)
        mine = [now]  # an object of its own, so that the thread that stored it is recognized
        if self._since.setdefault(key, mine) is not mine:
            return False
        for oldest in list(self._since)[: -self._most]:
            self._since.pop(oldest, None)
        return True

    def forget(self) -> None:
        """Forget all keys: the problem is over, and worth a line if it comes back."""
        self._since.clear()
