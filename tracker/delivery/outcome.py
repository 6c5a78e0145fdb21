"""`Delivery`: the result of sending a batch, and what it means for its events."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Rejection:
    """An event that the server will never accept. It becomes a dead letter.

    Attributes:
        event_id: The event's id.
        code: The server's error code. Default of a dead letter: ``rejected``.
        message: The reason, in the server's words.
    """

    event_id: str
    code: str
    message: str


class SignedHead(NamedTuple):
    """A head of an outbox's tree that a witness has signed.

    Attributes:
        size: Number of events that it covers.
        root: The root over their digests, 64 hex digits.
        note: The checkpoint with all signatures.
    """

    size: int
    root: str
    note: str


class Outcome(enum.Enum):
    """What an answer means for the events that were sent, and what is done next.

    Only `DELIVERED`, `INVALID` and `TOO_LARGE` settle events; after all others they stay pending
    and are sent again, for ever.
    """

    DELIVERED = "delivered"
    """All events are stored, except those in `Delivery.rejected`, which become dead letters."""
    INVALID = "invalid"
    """Something in this batch can never be accepted. It is halved and sent again at once, until the
    bad event stands alone: that one becomes a dead letter."""
    TOO_LARGE = "too large"
    """The batch has too many bytes. It is halved and sent again at once; an event that is too large
    by itself becomes a dead letter."""
    REFUSED = "refused"
    """The API key is refused. A person must act, so the pause is at least half of `backoff_cap`."""
    TIMED_OUT = "timed out"
    """No complete answer arrived in time; the events may be stored. They are sent again after a
    pause, in smaller batches."""
    UNAVAILABLE = "unavailable"
    """There was no answer, or one that asks to retry later. The same is sent again after a pause,
    which grows up to `backoff_cap`."""
    STALE = "stale"
    """A kept connection was closed before any byte of the answer. The same is sent again at once;
    if that is stale too, after a pause."""
    UNEXPECTED = "unexpected"
    """The answer makes no sense; it may not come from a collector. As `UNAVAILABLE`."""


@dataclass(frozen=True)
class Delivery:
    """The result of sending one batch.

    Return `Outcome.DELIVERED` only once the other side has stored the events: it marks them as
    delivered. `Outcome` says what follows after each one.

    A delivery that makes no sense, such as one that rejects an event that was not in the upload or
    rejects one twice, counts as `Outcome.UNEXPECTED`: nothing of the batch is settled.

    Attributes:
        outcome: What the answer means for the events.
        cause: One line that says what was answered or what failed: the message of a dead letter,
            and what `status` and `health` show. Must not contain the API key.
        code: The server's error code, if it gave one. Default of a dead letter: ``invalid`` or
            ``too_large``.
        rejected: Events of a delivered batch that the server rejected.
        retry_after: Seconds to wait before the next attempt, as asked by the server, or None.
        warning: What the other side warns of though it has stored the events, in one word: shown by
            `health` and `status`, and logged once. ``forked``: two copies of this outbox have sent.
        highest_seq: The highest seq of this outbox that the other side has, or None if it does not
            say. If the outbox never got that far, it was set back, and `health` warns of it.
        witness: The newest head of this outbox's tree that the other side has signed, or None. If
            the outbox never had it, it was set back or another copy has sent.
        sent_bytes: Number of bytes that the attempt sent, for `APIConfig.upload_bytes_per_second`.
            None counts as the size of the events if they were delivered, and otherwise as 0.
        count: How many events, from the first on, this is about, if not all of them: the others are
            sent again, in another batch.
        skipped: The ids of events of a delivered batch that were not sent, because a setting says
            so. They are settled, and counted as skipped.
    """

    outcome: Outcome
    cause: str = ""
    code: str = ""
    rejected: Sequence[Rejection] = ()
    retry_after: float | None = None
    warning: str = ""
    highest_seq: int | None = None
    witness: SignedHead | None = None
    sent_bytes: int | None = field(default=None, compare=False)
    count: int | None = None
    skipped: Sequence[str] = ()
