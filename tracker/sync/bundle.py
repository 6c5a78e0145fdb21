"""`pack`: writes what is pending to a sealed file, to be carried to the collector by hand."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.errors import OutboxError, TrackerError
from tracker.outbox import batches, identity, ledger
from tracker.sealed.form import BUNDLE
from tracker.sealed.seal import Seal
from tracker.sealed.writer import Writer
from tracker.sync.body import Body
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from tracker.config import APIConfig
    from tracker.outbox import Batch, Outbox, Owner, ReadOnlyOutbox


_SPREAD = 64
"""Bytes by which the size of a body may differ when it is compressed at another time."""


class TooSmallError(TrackerError):
    """An event does not fit into a part of the given size."""


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        files: The files, in order; one without events if nothing was pending.
        events: Number of events in all of them.
        first_seq: The seq of the first event, or None.
        last_seq: The seq of the last one, or None.
        damaged: Number of pending events that no longer match their digest: they are left out.
    """

    files: tuple[Path, ...]
    events: int
    first_seq: int | None
    last_seq: int | None
    damaged: int


def pack(
    outbox: Outbox | ReadOnlyOutbox,
    config: APIConfig,
    place: Callable[[int], Path],
    *,
    max_bytes: int | None = None,
    replace: bool = False,
) -> Packed:
    """Write all events that are pending now. They stay pending: nothing changes in the outbox.

    Args:
        outbox: The outbox.
        config: The key that seals the files, and the limits of a body.
        place: Returns where the part with a number, from 1, is to appear.
        max_bytes: Maximum size of a part; None makes a single one.
        replace: Whether existing files may be replaced.

    Raises:
        ConfigurationError: if it is the outbox of another client, or for another collector.
        OutboxError: if the outbox cannot be read, or gets another id meanwhile.
        TooSmallError: if an event does not fit into `max_bytes`.
        FileExistsError: if a file exists and `replace` is False.
        OSError: if a file cannot be written. Parts that are complete stay.
    """
    owner = outbox.owner
    identity.check(owner, config)
    with outbox.reading() as connection:
        end = ledger.last_seq(connection)  # or an application that logs would keep us for ever
    with _Parts(config, owner, place, max_bytes, replace=replace) as parts:
        after, damaged, most = None, 0, config.batch_max_bytes - 1024
        while after is None or after < end:
            batch = _next(outbox, config.batch_max_events, most, after)
            if batch.outbox_id != owner.outbox_id:
                raise OutboxError("the outbox got another id meanwhile; pack it again")
            rows = [row for row in batch.rows if row.seq <= end]
            if rows and not parts.add(rows):
                if len(rows) == 1:
                    raise TooSmallError(parts.why_not(rows[0]))
                most = batch.size // 2
                continue
            damaged += sum(seq <= end for seq in batch.damaged)
            after = batch.through
            if not batch.more:
                break
    return Packed(tuple(parts.files), parts.events, parts.first_seq, parts.last_seq, damaged)


def _next(
    outbox: Outbox | ReadOnlyOutbox, max_events: int, max_bytes: int, after: int | None
) -> Batch:
    with outbox.reading() as connection:
        connection.exec_driver_sql("BEGIN")  # one state: an erasure comes before or after it
        batch = batches.next_batch(connection, max_events, max_bytes, after)
        connection.exec_driver_sql("COMMIT")
    return batch


class _Parts:
    """Writes bodies to files of limited size, each of which stands alone.

    As a context manager it completes the last part at the end of the block, or drops it if an
    exception escapes.
    """

    def __init__(
        self,
        config: APIConfig,
        owner: Owner,
        place: Callable[[int], Path],
        max_bytes: int | None,
        *,
        replace: bool,
    ) -> None:
        self.files: list[Path] = []
        self.events = 0
        self.first_seq: int | None = None
        self.last_seq: int | None = None
        self._body = Body(config.client_id, owner.outbox_id)
        self._header = {
            "client_id": config.client_id,
            "outbox_id": owner.outbox_id,
            "base_url": owner.base_url,
        }
        self._seal = Seal.of(config.api_key)
        self._place = place
        self._max_bytes = max_bytes
        self._replace = replace
        self._stack = ExitStack()
        self._part: _Part | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            if not self.files:
                self._part = self._begin()
            self._complete()
        else:
            self._stack.__exit__(*raised)  # type: ignore[arg-type]  # what the caller got

    def add(self, rows: Sequence[batches.Row]) -> bool:
        """Write a body of these events; return False if no part of this size has room for it."""
        body = self._body.of([row.wire for row in rows])
        if self._part is not None and not self._fits(self._part, rows, body):
            if not self._part.events:
                return False
            self._complete()
        if self._part is None:
            self._part = self._begin()
            if not self._fits(self._part, rows, body):
                return False
        self._part.add(rows, body)
        self.first_seq = rows[0].seq if self.first_seq is None else self.first_seq
        self.last_seq = rows[-1].seq
        self.events += len(rows)
        return True

    def why_not(self, row: batches.Row) -> str:
        """Return the sentence that says what size a part needs for this event."""
        assert self._part is not None  # noqa: S101 - `add` has tried
        needed = self._part.room_for([row], self._body.of([row.wire])) + _SPREAD
        return f"the event with seq {row.seq} needs a part of {needed:,} bytes"

    def _fits(self, part: _Part, rows: Sequence[batches.Row], body: bytes) -> bool:
        return self._max_bytes is None or part.room_for(rows, body) <= self._max_bytes

    def _begin(self) -> _Part:
        path = self._place(len(self.files) + 1)
        file = self._stack.enter_context(whole_file(path, replace=self._replace))
        self.files.append(path)
        header = {**self._header, "packed_at_ms": time.time_ns() // 1_000_000}
        return _Part(Writer(file, BUNDLE, [self._seal], header))

    def _complete(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.end()
            self._stack.close()


class _Part:
    """One file that is being written."""

    def __init__(self, writer: Writer) -> None:
        self.events = 0
        self._writer = writer
        self._first_seq: int | None = None
        self._last: batches.Row | None = None

    def room_for(self, rows: Sequence[batches.Row], body: bytes) -> int:
        """Return the size that the part would have at most with this body as the last."""
        return self._writer.room_for(_head(rows), body)

    def add(self, rows: Sequence[batches.Row], body: bytes) -> None:
        """Write a body."""
        self._writer.add(_head(rows), body)
        self._first_seq = self._first_seq or rows[0].seq
        self._last = rows[-1]
        self.events += len(rows)

    def end(self) -> None:
        """Write the counts, and where the chain of the outbox is at the last event."""
        last = self._last
        self._writer.end(
            {
                "events": self.events,
                "first_seq": self._first_seq,
                "last_seq": None if last is None else last.seq,
                "chain": None if last is None else json.loads(last.wire)["chain"],
            }
        )


def _head(rows: Sequence[batches.Row]) -> dict[str, object]:
    return {
        "encoding": "gzip",
        "events": len(rows),
        "first_event_id": rows[0].event_id,
        "last_event_id": rows[-1].event_id,
    }
