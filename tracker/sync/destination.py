"""Where events go: the seam between the sync worker and HTTP."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Upload:
    """Events to send, in ascending seq: their ids and, in the same order, their JSON.

    Attributes:
        event_ids: The ids.
        events: The events, encoded.
        following: Returns what will be sent after this one if all goes well, or None. A
            destination may call it once, while it waits for the answer, and make that ready.
    """

    event_ids: Sequence[str]
    events: Sequence[bytes]
    following: Callable[[], Upload | None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Rejection:
    """One event that the server will never take, in the server's words."""

    event_id: str
    code: str
    message: str


class Outcome(enum.Enum):
    """What an answer means for the events that were sent."""

    DELIVERED = "delivered"
    """A valid receipt: all stored but for those it rejects."""
    INVALID = "invalid"
    """The server cannot take this batch because of something in it."""
    TOO_LARGE = "too large"
    """The batch has too many bytes for the server."""
    REFUSED = "refused"
    """The server refuses the API key."""
    TIMED_OUT = "timed out"
    """No complete answer in time; the server may have stored the events."""
    UNAVAILABLE = "unavailable"
    """No answer, or one that asks to come back later."""
    STALE = "stale"
    """A kept connection was closed before any byte of an answer; a fresh one is to be tried."""
    UNEXPECTED = "unexpected"
    """An answer that the protocol does not know; somebody else may be speaking."""


@dataclass(frozen=True)
class Delivery:
    """What came of sending one batch.

    Attributes:
        outcome: What it means.
        cause: One line for people: what was answered or went wrong. Never holds the API key.
        code: The server's error code, if it gave one.
        rejected: Events of a delivered batch that the server rejected.
        retry_after: Seconds that the server asks to wait at least, or None.
    """

    outcome: Outcome
    cause: str = ""
    code: str = ""
    rejected: Sequence[Rejection] = ()
    retry_after: float | None = None


class Destination(Protocol):
    """Takes batches. Used by one thread, the sync worker's, from first call to `close`."""

    def send(self, upload: Upload) -> Delivery:
        """Send one batch and tell what came of it. Trouble is an outcome, not an exception."""

    def close(self) -> None:
        """Give connections back."""
