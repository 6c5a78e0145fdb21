"""Bundles of evidence out of an outbox; `tracker.evidence` describes the file."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.erasure import named_events
from tracker.errors import OutboxError, ValidationError
from tracker.events import (
    COMPLIANCE_ERASED,
    EVENTS_DISCARDED,
    INTEGRITY_KEY_CHANGED,
    Event,
)
from tracker.evidence import bundle, contents, note
from tracker.evidence.contents import Contents, Head
from tracker.evidence.tree import TreeError
from tracker.evidence.verifier import NotProvenError, parse_checkpoint
from tracker.outbox import StoredTree, checkpoint, identity, tables
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.outbox import Outbox

MOST_EVENTS = 100_000
"""Events in one bundle, which is made in memory."""

_SELECT = f"SELECT seq, {tables.EVENT}, chain FROM events WHERE "
_OF_TYPE = _SELECT + "type = ? ORDER BY seq"
# SQLite uses the index of erasure events only if the type is written out.
_ERASURES = _SELECT + f"type = '{COMPLIANCE_ERASED}' ORDER BY seq"


@dataclass(frozen=True)
class Selection:
    """Which events go into a bundle: those of a session, of a range of seqs, or of a period.

    Attributes:
        session_id: The session.
        seqs: The first and last seq.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
    """

    session_id: str | None = None
    seqs: tuple[int, int] | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def described(self) -> dict[str, Any]:
        """Return the selection as the bundle states it."""
        if self.session_id is not None:
            return contents.session(self.session_id)
        if self.seqs is not None:
            return contents.seqs(*self.seqs)
        return contents.period(self.since_ms, self.until_ms)

    def condition(self) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL condition and the values to bind in it."""
        if self.session_id is not None:
            return "session_id = ?", (self.session_id,)
        if self.seqs is not None:
            return "seq BETWEEN ? AND ?", self.seqs
        since = -(2**63) if self.since_ms is None else self.since_ms
        until = 2**63 - 1 if self.until_ms is None else self.until_ms
        return "timestamp_ms >= ? AND timestamp_ms < ?", (since, until)


@dataclass(frozen=True)
class Evidence:
    """What a bundle proves.

    Attributes:
        events: Number of events that were selected.
        size: Number of events that the head covers: all up to this seq.
        root: The root over their digests, 64 hex digits.
        witnessed: Whether the receiver has signed that head.
        key: The device's public key, as ``verifier.py --key`` takes it; None if it has none. Who
            checks the bundle must get it from elsewhere: note it when the device is set up.
    """

    events: int
    size: int
    root: str
    witnessed: bool
    key: str | None


def device_key(outbox: Outbox) -> str | None:
    """Return the public key that signs the outbox's heads, as text; None if it has none."""
    signer = outbox.signer()
    if signer is None:
        return None
    return str(note.device_key(outbox.owner.outbox_id, signer.public_key))


def write(
    outbox: Outbox,
    path: str | os.PathLike[str],
    selection: Selection,
    *,
    withhold: frozenset[str] = frozenset(),
    complete: bool = False,
    replace: bool = False,
) -> Evidence:
    """Write a bundle of events to a file, which appears complete or not at all.

    If there is anything new, a checkpoint is logged first, so that a head covers it.

    Args:
        outbox: The outbox.
        path: The new file.
        selection: The events.
        withhold: Parts of the events to leave out: ``user``, ``data``.
        complete: Whether to show that no event between the first and the last is left out: those
            of others stand there as digests.
        replace: Whether to replace a file that exists.

    Raises:
        ValidationError: if nothing, or too much, is selected, or the file cannot be written.
        OutboxError: if the outbox cannot be read or written, an event was changed, or no head is
            signed.
    """
    outbox.checkpoint(0)
    signer = outbox.signer()
    with outbox.snapshot() as connection:
        found = _Search(connection, selection)
        chosen = Contents(
            found.head,
            selection.described(),
            found.events,
            found.removals,
            complete,
            withhold,
            found.older,
        )
        named = None if signer is None else (note.origin(found.outbox_id), signer)
        try:
            with whole_file(Path(path), replace=replace) as file:
                bundle.write(file, chosen, StoredTree(connection), named)
        except FileExistsError:
            raise ValidationError(
                "path", f"is {str(path)!r}, which exists; give the path of a new file"
            ) from None
        except (bundle.BundleError, TreeError) as error:
            raise OutboxError(f"no evidence can be made of {outbox.path}: {error}") from error
        except OSError as error:
            raise ValidationError(
                "path", f"is {str(path)!r}, which cannot be written: {error.strerror}"
            ) from error
    head = parse_checkpoint(found.head.note.encode())
    return Evidence(
        len(found.events), head.size, head.root.hex(), found.witnessed, device_key(outbox)
    )


class _Search:
    """What a bundle needs of an outbox, read in one snapshot."""

    def __init__(self, connection: Connection, selection: Selection) -> None:
        self._connection = connection
        self.outbox_id = identity.read(connection).outbox_id
        head_seq = connection.exec_driver_sql("SELECT head_seq FROM tree").scalar() or 0
        self.events = self._selected(selection, head_seq)
        self.removals = [each for each in self._explaining() if each["seq"] < head_seq]
        needed = max(each["seq"] for each in (*self.events, *self.removals))
        own, seen = self._own_head(head_seq), checkpoint.witness(connection)
        self.witnessed = seen is not None and seen.size >= needed
        self.older: Sequence[Head] = ()
        if seen is not None and self.witnessed:
            self.head = Head(seen.note)
        elif own is not None:
            self.head = own
            self.older = () if seen is None else (Head(seen.note),)
        else:
            raise OutboxError(
                "no head over these events is signed: install the extra [evidence] "
                "(pip install 'agent-tracking-sdk[evidence]'), or upload to a collector that signs"
            )

    def _selected(self, selection: Selection, head_seq: int) -> list[dict[str, Any]]:
        condition, bound = selection.condition()
        rows = self._rows(
            f"{_SELECT}{condition} AND seq < ? ORDER BY seq LIMIT ?",
            (*bound, head_seq, MOST_EVENTS + 1),
        )
        events = list(rows)
        if not events:
            raise ValidationError("selection", "selects no stored event")
        if len(events) > MOST_EVENTS:
            raise ValidationError(
                "selection", f"selects more than {MOST_EVENTS:,} events; select fewer"
            )
        return events

    def _rows(self, query: str, bound: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        for seq, *fields, chain in self._connection.exec_driver_sql(query, bound):
            event = Event(*fields)
            try:
                sent = json.loads(event.wire(seq, chain))
            except (TypeError, ValueError, AttributeError):
                raise OutboxError(
                    f"event {seq} was changed after it was stored: see `tracker-sync verify`"
                ) from None
            yield {**sent, "digest": event.digest}

    def _explaining(self) -> Iterator[dict[str, Any]]:
        """Yield the events that say what became of others: of keys, erased and discarded ones."""
        chosen = {each["event_id"] for each in self.events}
        erased = {each["event_id"] for each in self.events if each["data"] == {"erased": True}}
        others = (
            *self._rows(_OF_TYPE, (INTEGRITY_KEY_CHANGED,)),
            *self._rows(_OF_TYPE, (EVENTS_DISCARDED,)),
            *self._naming(erased),
        )
        for each in sorted(others, key=lambda event: int(event["seq"])):
            if each["event_id"] not in chosen:
                yield each

    def _naming(self, erased: set[str]) -> Iterator[dict[str, Any]]:
        for each in self._rows(_ERASURES) if erased else ():
            if erased.intersection(named_events(canonical.encode(each["data"]))):
                yield each

    def _own_head(self, head_seq: int) -> Head | None:
        """Return the newest head that the device has signed, or None."""
        data = self._connection.exec_driver_sql(
            "SELECT data FROM events WHERE seq = ?", (head_seq,)
        ).scalar()
        try:
            text = canonical.decode(data or "")["note"]
            parse_checkpoint(text.encode())
        except (ValueError, KeyError, TypeError, AttributeError, NotProvenError):
            return None
        return Head(text)
