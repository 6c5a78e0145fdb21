"""Leaps of the wall clock, so that a wrong clock removes nothing before its time.

How long ago an event was delivered can only be told by the wall clock, and that may leap: a device
without a clock battery boots in 1970, an operator sets a wrong year. A leap ahead would make all
that was delivered look old. Three ways to rule that out were weighed:

1. The server's clock, from the ``Date`` of its receipts. Right over leaps here, not over those of a
   collector on the same machine; and not every destination has a clock to tell.
2. Time during which a process watched, by the monotonic clock. Never early; but a job that runs for
   ten seconds a day would keep its seven days for centuries.
3. The wall clock, held against the monotonic one. This is what is done here: where the wall clock
   is further on than can be, everything delivered counts as delivered now. It then stays too
   long, by its own days at most, and never too short. One number is stored.

Between two runs nobody watches. There a month is believed, for a device may have been switched off:
a leap of less, between runs, is the one that is not seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from tracker.outbox.transaction import Transaction

T = TypeVar("T")

FLOOR = "delivered_since_ms"
"""Entry in the table `account`, which holds numbers by name: nothing counts as delivered before."""

_SLACK_MS = 600_000
"""A clock drifts, and is put right by a little, all the time."""
_UNWATCHED_MS = 31 * 86_400_000


def now_ms() -> int:
    """Return the wall clock's time, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    """Return a time that never leaps and goes on while the machine sleeps, where there is one."""
    # Linux alone stops its monotonic clock in sleep, and has this one besides.
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    seconds = monotonic() if boot_time is None else time.clock_gettime(boot_time)
    return int(seconds * 1000)


class RunJob(Protocol):
    """Type of `Outbox.run`: runs a write job and returns its result."""

    def __call__(self, job: Callable[[Transaction], T]) -> T:
        """Run `job`."""


class ClockWatch:
    """Notices leaps of the wall clock. Belongs to one outbox; one thread at a time uses it."""

    def __init__(self) -> None:
        self._began: tuple[int, int] | None = None

    def look(self, run: RunJob) -> None:
        """Note it in the outbox if the clock has leapt ahead. Called before a delivery is stamped.

        Args:
            run: Runs a write job, `Outbox.run`.
        """
        wall, steady = now_ms(), _steady_ms()
        if self._began is None:
            last = run(_last_delivery) or wall
            leapt = wall - last > _UNWATCHED_MS
            moved = True
        else:
            # Against the beginning, not the last look: many small steps are a leap too.
            ahead = (wall - self._began[0]) - (steady - self._began[1])
            leapt = ahead > _SLACK_MS
            moved = abs(ahead) > _SLACK_MS
        if leapt:
            run(lambda transaction: _raise_floor(transaction.connection, wall))
        if moved:
            self._began = wall, steady


def _last_delivery(transaction: Transaction) -> int:
    return int(
        transaction.connection.exec_driver_sql(
            "SELECT coalesce(last_success_ms, 0) FROM sync_state"
        ).scalar_one()
    )


def keep_floor(connection: Connection, entries: Mapping[str, int]) -> None:
    """Carry what a damaged outbox's account knew of leaps over to the new one's.

    Where nothing of the account can be read, everything delivered counts as delivered now.
    """
    if not entries:
        _raise_floor(connection, now_ms())
    elif FLOOR in entries:
        _raise_floor(connection, entries[FLOOR])


def _raise_floor(connection: Connection, wall_ms: int) -> int:
    connection.exec_driver_sql(
        "INSERT INTO account (entry, events) VALUES (?, ?) "
        "ON CONFLICT (entry) DO UPDATE SET events = excluded.events",
        (FLOOR, wall_ms),
    )
    return wall_ms


def delivered_since_ms(transaction: Transaction) -> int:
    """Return the time before which nothing counts as delivered; 0 where no clock ever leapt.

    One in the future, by a clock that was wrong, becomes now.
    """
    query = "SELECT events FROM account WHERE entry = ?"
    floor = transaction.connection.exec_driver_sql(query, (FLOOR,)).scalar()
    if floor is None:
        return 0
    wall = now_ms()
    return _raise_floor(transaction.connection, wall) if floor > wall else int(floor)
