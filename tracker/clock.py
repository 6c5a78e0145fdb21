"""The clock and the sleep that waits go by: real time, whatever a test has done to `time`.

Tests of the host freeze clocks: freezegun, for one, puts its own function in the place of
`time.monotonic` in every module that has it, and a wait until that clock has advanced would never
end. Under such a clock, what was put off until later would also stay so for years after the test.
The system's clock is read by another function here, which no such library replaces.

The wall clock is another matter: an event has the time that the host sees.
"""

from __future__ import annotations

from functools import partial
from time import CLOCK_MONOTONIC, clock_gettime, sleep

__all__ = ["monotonic", "sleep"]

monotonic = partial(clock_gettime, CLOCK_MONOTONIC)
"""Returns seconds on a clock that is never set; only differences mean anything. No function of
Python's own: each logging call asks three times."""
