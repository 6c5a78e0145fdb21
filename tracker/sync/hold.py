"""`Hold`: why the next request is not made now, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tracker.sync.pause import Pause


class Hold(NamedTuple):
    """A reason to wait, though events are pending and the server may well be there.

    Attributes:
        because: The reason, in one line.
        pause: The pause until this is examined again.
        until_ms: When it ends, Unix milliseconds, or None if nobody knows.
        is_trouble: Whether it is a fault, not what the settings ask for.
    """

    because: str
    pause: Pause
    until_ms: int | None = None
    is_trouble: bool = False
