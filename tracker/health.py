"""`Health`: how a tracker stands at one moment, for a health endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Health:
    """What `BaseTracker.health` found. Times in Unix milliseconds, the rest in events.

    The loss account adds up: `accepted` is `delivered` + `pending` + `dead` + the sum of
    `discarded`. What waits in memory comes on top, for it is not in the outbox yet.

    Attributes:
        enabled: False if the configuration says ``disabled``; everything else is empty then.
        durability: The one in force, ``"full"`` or ``"process"``; None if disabled.
        pending: Events that wait to be sent.
        oldest_pending_age: Seconds since the first of them was logged, by the wall clock and never
            below 0; None if none is pending.
        in_memory: Events that wait in memory because the outbox cannot be written: a crash loses
            them.
        accepted: Events that logging calls handed over.
        delivered: Events that a receipt says are stored.
        dead: Events that the server refused for good.
        discarded: Events that were given up, by reason: ``operator``, ``size_policy``,
            ``memory_buffer`` (it overflowed), ``damage`` (could not be salvaged).
        last_success_ms: When a receipt last came, or None.
        last_error: Why uploading last failed, or None.
        last_error_ms: When that was, or None.
        paused_because: Why uploading waits now, or None.
        storage_error: Why the outbox could not be written or read when last tried, or None. If it
            cannot be read now, the figures are those that were last seen.
        log_bytes: Size of SQLite's write-ahead log. It is large while another program reads an old
            state of the outbox; see tracker/README.md, "What happens when …".
        damaged_sets: Damaged outbox files that were moved aside, oldest first; see
            tracker/README.md, "What happens when …".
    """

    enabled: bool = True
    durability: str | None = None
    pending: int = 0
    oldest_pending_age: float | None = None
    in_memory: int = 0
    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    paused_because: str | None = None
    storage_error: str | None = None
    log_bytes: int = 0
    damaged_sets: tuple[Path, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing wants looking after: storage works and uploading is not held up."""
        return not (self.storage_error or self.in_memory or self.paused_because)
