"""The clock and the sleep for waiting: real time, even if a test has replaced those of `time`.

Tests of the application may freeze clocks: freezegun, for example, replaces `time.monotonic` in
every module that has imported it. A wait on such a clock would never end, and work scheduled by it
would not be done for years. So the system clock is read by a function that no such library
replaces.

The wall clock is different: an event gets the time that the application sees.
"""

from __future__ import annotations

from functools import partial
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, sleep

__all__ = ["monotonic", "sleep", "wall"]

monotonic = partial(clock_gettime, CLOCK_MONOTONIC)
"""Returns seconds of a clock that is never set; only differences are meaningful. Not a Python
function, for speed: each logging call reads it three times."""

wall = partial(clock_gettime, CLOCK_REALTIME)
"""Returns seconds since the epoch by the system's clock, which may be set at any time."""
