"""What can still be read of a damaged outbox: every row that its digest says is whole.

The digest makes carving safe: whatever bytes turn up, a row that matches its SHA-256 is the event
that was logged. Its seq and its state are not part of the digest. A state that is not plausible
counts as pending, for an event that is sent twice arrives once, and one that is never sent not at
all.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.erasure import ERASED, named_events
from tracker.events import COMPLIANCE_ERASED, Event
from tracker.outbox import account, tables
from tracker.outbox.pages import USUAL_PAGE_BYTES, Cell, Pages, page_bytes, varint

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

# Every revision of the schema so far has these columns, in this order; a later one adds behind.
_COLUMNS = [column.name for column in tables.events.columns]
_EVENT_COLUMNS = [_COLUMNS.index(name) for name in Event._fields]
_STATE_COLUMNS = [
    _COLUMNS.index(name) for name in ("delivered_at_ms", "dead_at_ms", "dead_code", "dead_message")
]
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
_LEAST_TIME_MS = 2
"""0 and 1 take no bytes in a record, so that one flipped bit can make them of a NULL."""


class Row(NamedTuple):
    """One event as an outbox held it, with its seq there and its state."""

    seq: int
    event: Event
    delivered_at_ms: int | None
    dead_at_ms: int | None
    dead_code: str | None
    dead_message: str | None

    @property
    def pending(self) -> bool:
        """Whether it waits to be sent."""
        return self.delivered_at_ms is None and self.dead_at_ms is None


@dataclass
class Salvage:
    """What a damaged outbox still holds.

    Attributes:
        rows: The whole rows in order of seq, each event once.
        broken: How many rows were found that do not match their digests.
        lost: Undelivered events that are known to have been there and are not in `rows`.
        client_id: Whose outbox it was, or None if that cannot be read.
        base_url: Where its events went, or None.
    """

    rows: list[Row] = field(default_factory=list)
    broken: int = 0
    lost: int = 0
    client_id: str | None = None
    base_url: str | None = None


def is_whole(row: Row, erased: Container[str]) -> bool:
    """Decide whether a row may be carried over: intact, or erased by an event that names it.

    The rule of `verify`. And a row that an erasure names is never carried over with the data that
    were to be forgotten, which an old page may still hold.
    """
    if row.event.event_id in erased:
        return row.event.data == ERASED
    return is_intact(row.event)


def is_intact(event: Event) -> bool:
    """Tell whether the event matches its digest."""
    *columns, digest = event
    return canonical.matches(digest, *columns)


def read(path: Path) -> Salvage:
    """Return what the outbox at `path` and its log still hold. Changes neither.

    The caller holds the write lock, so that nobody changes them meanwhile.

    Raises:
        OSError: if the file cannot be read at all.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        log: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            log = stack.enter_context(path.with_name(f"{path.name}-wal").open("rb"))
        # The size in the header may be what is damaged.
        sizes = {USUAL_PAGE_BYTES, page_bytes(file)}
        tries = [_read(Pages(file, log, size).cells()) for size in sizes]
        return max(tries, key=lambda found: len(found.rows))


def _read(cells: Iterable[Cell]) -> Salvage:
    rows: list[Row] = []
    books: dict[str, int] = {}
    gaps: dict[int, int] = {}
    found = Salvage()
    for cell in cells:
        values = _values(cell.record)
        if values is None:
            continue
        if len(values) >= len(_COLUMNS):
            rows.append(make_row(cell.rowid, values))
        elif len(values) == 5 and values[4] and _are(values[1:4], str, str, str):
            _, _, found.client_id, found.base_url, _ = values
        elif len(values) == 3 and isinstance(values[1], int) and _is_digest(values[2]):
            gaps[cell.rowid] = values[1]
        elif len(values) == 2 and _are(values, str, int):
            books[values[0]] = values[1]
    found.rows, found.broken = choose(rows)
    found.lost = _lost(found.rows, books, gaps)
    return found


def choose(rows: list[Row]) -> tuple[list[Row], int]:
    """Return the whole rows in order of seq, each event once, and how many others there are."""
    erased = {name for row in rows for name in _erased_by(row.event)}
    # Marked, and what named it is lost: its old data must not come back from an old page.
    marked = {row.event.event_id for row in rows if _is_marked(row.event)} - erased
    whole: dict[str, Row] = {}
    broken: set[int] = set()
    for row in rows:
        if row.event.event_id not in marked and is_whole(row, erased):
            whole.setdefault(row.event.event_id, row)
        else:
            broken.add(row.seq)
    chosen = sorted(whole.values(), key=lambda row: row.seq)
    return chosen, len(broken - {row.seq for row in chosen})


def _erased_by(event: Event) -> Iterator[str]:
    """Yield the ids of the events that this one says were erased."""
    if event.type == COMPLIANCE_ERASED and is_intact(event):
        yield from named_events(event.data)


def _is_marked(event: Event) -> bool:
    return event.data == ERASED and not is_intact(event)


def _lost(rows: list[Row], books: dict[str, int], gaps: dict[int, int]) -> int:
    """Return how many undelivered events are missing, as far as the books can be read.

    Without the account, every missing row that was not removed on purpose counts.
    """
    removed = sum(last - first + 1 for first, last in gaps.items() if last >= first)
    ends = {0, *gaps.values(), *(row.seq for row in rows)}
    # One whose neighbour is nowhere may have its seq from a damaged byte.
    last = max((seq for seq in ends if seq - 1 in ends), default=max(ends))
    if account.DELIVERED in books:
        settled = sum(
            count
            for entry, count in books.items()
            if entry.startswith((account.DELIVERED, account.DISCARDED))
            and entry.removeprefix(account.DISCARDED) not in account.WITHOUT_SEQ
        )
        return max(0, last - settled - sum(row.delivered_at_ms is None for row in rows))
    return max(0, last - removed - len(rows))


def make_row(seq: int, values: list[Any]) -> Row:
    """Return the row of the values of all columns, which may be of any type."""
    delivered, dead, code, message = (values[place] for place in _STATE_COLUMNS)
    was_delivered, is_dead = _is_time(delivered), _is_time(dead)
    return Row(
        seq,
        Event(*(values[place] for place in _EVENT_COLUMNS)),
        delivered if was_delivered else None,
        dead if is_dead and not was_delivered else None,
        str(code) if is_dead and code is not None else None,
        str(message) if is_dead and message is not None else None,
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int) and value >= _LEAST_TIME_MS


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == len(canonical.GENESIS)


def _are(values: list[Any], *types: type) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(values, types, strict=True))


def _values(record: bytes) -> list[Any] | None:
    """Return a record's values (sqlite.org/fileformat2.html, section 2.1), or None if it is not."""
    try:
        end, at = varint(record, 0)
        kinds = []
        while at < end:
            kind, at = varint(record, at)
            kinds.append(kind)
        values = []
        for kind in kinds:
            value, at = _value(record, at, kind)
            values.append(value)
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    return values if at == len(record) else None


def _value(record: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        if end > len(record):
            raise IndexError
        return record[at:end].decode() if kind % 2 else record[at:end], end
    if kind == 7:
        return struct.unpack_from(">d", record, at)[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind > 9:
        raise IndexError  # reserved
    if kind == 0:
        return None, at
    end = at + _INTEGER_BYTES[kind]
    return int.from_bytes(record[at:end], "big", signed=True), end
