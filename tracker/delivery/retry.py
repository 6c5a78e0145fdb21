"""When to retry. It has no clock and does no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

import backoff

from tracker.delivery.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tracker.delivery.outcome import Delivery

MOST_RETRY_AFTER = 3600.0
"""Longest pause in seconds that a server can ask for."""


class Backoff:
    """Exponential backoff: `base` seconds, doubled each time up to `cap`, with full jitter.

    With full jitter, each pause is drawn between 0 and its limit, so that many devices do not
    return to a server at the same time.
    """

    def __init__(
        self, base: float, cap: float, jitter: Callable[[float], float] = backoff.full_jitter
    ) -> None:
        self._base = base
        self._cap = cap
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Start again at `base`, after a success."""
        self._bounds: Generator[float, None, None] = backoff.expo(
            base=2, factor=self._base, max_value=self._cap
        )
        next(self._bounds)  # the first value of backoff's generators is None

    def pause_after(self, delivery: Delivery) -> float:
        """Return the seconds to wait after a failed `delivery`."""
        pause = self._jitter(next(self._bounds))
        if delivery.outcome is Outcome.REFUSED:
            # A person must act; until then a request now and then is enough.
            pause = max(pause, self._cap / 2 + self._jitter(self._cap / 2))
        if delivery.retry_after is not None:
            pause = max(pause, min(delivery.retry_after, MOST_RETRY_AFTER))
        return pause
