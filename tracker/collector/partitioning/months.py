"""`Month`: a month of UTC, and the event ids that were made in it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTHS = 12
_TIME_DIGITS = 12


class Month(NamedTuple):
    """A month of UTC, which a partition is for.

    A query plans every partition: with one for each week of a year, PostgreSQL took seven times as
    long to plan the newest events of a client as with one for each month.
    """

    year: int
    number: int

    @classmethod
    def of(cls, time_ms: int) -> Month:
        """Return the month of a time, Unix milliseconds."""
        moment = datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc)
        return cls(moment.year, moment.month)

    @property
    def table(self) -> str:
        """The name of its partition."""
        return f"events_{self.year}m{self.number:02}"

    @property
    def next(self) -> Month:
        """The month after it."""
        if self.number == _MONTHS:
            return Month(self.year + 1, 1)
        return Month(self.year, self.number + 1)

    @property
    def lower(self) -> str:
        """The lowest event id of its time."""
        start = datetime(self.year, self.number, 1, tzinfo=timezone.utc)
        return lowest_id(int(start.timestamp()) * 1000)

    @property
    def upper(self) -> str:
        """The lowest event id of the time after it."""
        return self.next.lower


def months_from(first: Month, last: Month) -> Iterator[Month]:
    """Yield the months from one to another, both included."""
    while first <= last:
        yield first
        first = first.next


def lowest_id(time_ms: int) -> str:
    """Return what no UUIDv7 of this time or later is less than, and every earlier one is."""
    digits = f"{time_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def time_of(event_id: str) -> int:
    """Return the time of a UUIDv7, or of such a bound, Unix milliseconds.

    Raises:
        ValueError: if it is not hexadecimal.
    """
    return int(event_id.replace("-", "")[:_TIME_DIGITS], 16)
