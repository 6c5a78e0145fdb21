"""When to try again. Pure decisions: no clock, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

import backoff

from tracker.sync.destination import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tracker.sync.destination import Delivery

MOST_RETRY_AFTER = 3600.0
"""Seconds: a server that asks for more is not believed."""


class Backoff:
    """Growing pauses: `base` seconds doubled each time, at most `cap`, with full jitter.

    Full jitter draws each pause from 0 to its bound, so that many devices that lost the same
    server do not come back in step.
    """

    def __init__(
        self, base: float, cap: float, jitter: Callable[[float], float] = backoff.full_jitter
    ) -> None:
        self._base = base
        self._cap = cap
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Begin again at `base`, after a success."""
        self._bounds: Generator[float, None, None] = backoff.expo(
            base=2, factor=self._base, max_value=self._cap
        )
        next(self._bounds)  # backoff's generators yield nothing first

    def pause_after(self, delivery: Delivery) -> float:
        """Return the seconds to wait after a failed `delivery`."""
        pause = self._jitter(next(self._bounds))
        if delivery.outcome is Outcome.REFUSED:
            # A person must act; until then one request in a long while is enough.
            pause = max(pause, self._cap / 2 + self._jitter(self._cap / 2))
        if delivery.retry_after is not None:
            pause = max(pause, min(delivery.retry_after, MOST_RETRY_AFTER))
        return pause
