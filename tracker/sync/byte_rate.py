"""A limit on bytes in a period. It has no clock: the caller passes the time."""

from __future__ import annotations


class ByteRate:
    """Allows `per_second` bytes on average: after each request, a pause in proportion to its size.

    A request itself is sent as fast as the link carries it, so that none is cut off by a time
    limit because it was slowed down. Time in which nothing was sent allows no more later.
    """

    def __init__(self, per_second: float | None, now: float) -> None:
        self._per_second = per_second
        self._free_at = now

    def sent(self, size: int, began: float) -> None:
        """Note a request of `size` bytes that began at that time."""
        if self._per_second is not None:
            self._free_at = max(self._free_at, began) + size / self._per_second

    def wait(self, now: float) -> float:
        """Return the seconds until the next request is allowed; 0.0 if it is."""
        return max(0.0, self._free_at - now)

    def batch_bytes(self, most: int, seconds: float) -> int:
        """Return how many bytes, at `most`, a link of this rate carries within `seconds`."""
        if self._per_second is None:
            return most
        return max(1, min(most, int(self._per_second * seconds)))
