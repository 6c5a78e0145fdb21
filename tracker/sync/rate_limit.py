"""A token bucket for requests. It has no clock: the caller passes the time."""

from __future__ import annotations


class TokenBucket:
    """Allows at most `per_minute` requests in any 60 seconds, in bursts of one second's share.

    The burst is included: tokens are added so slowly that no 60 seconds have more than
    `per_minute`.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._burst = max(1.0, per_minute / 60)
        self._per_second = max(per_minute - self._burst, 0.5) / 60
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
