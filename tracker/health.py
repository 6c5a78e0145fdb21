"""`Health`: the state of a tracker at one moment, for a health endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Health:
    """Result of `BaseTracker.health`. Times are Unix milliseconds; the other figures count events.

    The loss account adds up: `accepted` is `delivered` + `pending` + `dead` + `skipped` + the sum
    of `discarded`. Events in memory are not included, since they are not in the outbox yet.

    Attributes:
        enabled: False if the configuration says ``disabled``; everything else is empty then.
        durability: The durability in use, ``"full"`` or ``"process"``; None if disabled.
        pending: Number of pending events.
        oldest_pending_age: Seconds since the oldest pending event was logged, by the wall clock
            and never below 0; None if none is pending.
        in_memory: Number of events kept in memory because the outbox cannot be written; a crash
            loses them.
        accepted: Number of events accepted from logging calls.
        delivered: Number of events that a receipt says are stored.
        dead: Number of dead letters: events that the server permanently rejected.
        discarded: Number of discarded events by reason: ``operator``, ``size_policy``,
            ``memory_buffer`` (it overflowed), ``hook`` (`APIConfig.before_record` dropped it),
            ``damage`` (could not be salvaged).
        skipped: Number of events that were not sent because a setting (`otlp_skip`) says so.
        last_success_ms: Time of the last receipt, or None.
        last_error: Reason of the last failed upload, or None.
        last_error_ms: Time of the last failed upload, or None.
        paused_because: Reason why uploading is paused now, or None.
        waits_because: Which setting lets uploads wait, or None: the upload window, `may_upload`, or
            the byte rate. Nothing has failed then.
        waits_until_ms: When that is over, or None if nobody knows.
        warning: What the newest receipt warned of, or None: ``forked`` if two copies of the outbox
            have sent events under the same numbers, ``rolled_back`` if the server has later events
            than the outbox itself, or another word of the server's.
        storage_error: Reason why the outbox could not be written or read at the last attempt, or
            None. If it cannot be read now, the figures are the last ones that were read.
        log_bytes: Size of SQLite's write-ahead log in bytes. It grows while another program reads
            an old state of the outbox; see tracker/README.md, "What happens when …".
        damaged_sets: Damaged outbox files that were moved aside, oldest first; see
            tracker/README.md, "What happens when …".
        otel_dropped: Number of OpenTelemetry's spans and log records that this process could not
            store; the log says why. They are in no other figure.
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
    skipped: int = 0
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    paused_because: str | None = None
    waits_because: str | None = None
    waits_until_ms: int | None = None
    warning: str | None = None
    storage_error: str | None = None
    log_bytes: int = 0
    damaged_sets: tuple[Path, ...] = ()
    otel_dropped: int = 0

    @property
    def ok(self) -> bool:
        """Whether storage works and uploading is not paused."""
        return not (self.storage_error or self.in_memory or self.paused_because)
