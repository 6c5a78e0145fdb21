"""Everything that can still be read from a damaged outbox: rows that are whole by their digest.

The digest makes that safe: whatever bytes are found, a row that matches its SHA-256 is the event
that was logged. Its seq and its state are not part of the digest. A row with an implausible state
counts as pending, because an event that is sent twice is stored once, but one that is never sent is
lost.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.outbox.files import paths
from tracker.outbox.recovery.candidates import FoundRows, Place
from tracker.outbox.recovery.rows import FEWEST, Row, is_time, make_row
from tracker.outbox.schema import tables
from tracker.outbox.sqlite.file_format import USUAL_PAGE_BYTES, Pages, page_bytes, varint
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_STATE_LENGTH = len(tables.sync_state.columns)
_LAST_SUCCESS = list(tables.sync_state.columns.keys()).index("last_success_ms")
_GAP_LENGTHS, _ENTRY_LENGTHS = (3, 4), (2, 3)
"""Numbers of values: a row that an older schema wrote has no proof."""
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)


@dataclass
class Books:
    """What the bookkeeping of a damaged outbox still shows.

    Attributes:
        account: The entries of the account.
        client_id: The client id of its owner, or None if that cannot be read.
        base_url: The collector that its events were sent to, or None.
        last_success_ms: When the last receipt came, or None.
    """

    account: dict[str, int] = field(default_factory=dict)
    client_id: str | None = None
    base_url: str | None = None
    last_success_ms: int | None = None


_LEAST_BYTES = 100
"""No event takes less: its digest and chain value alone have 128 characters."""


class Salvage:
    """What a damaged outbox still contains.

    Attributes:
        books: Its bookkeeping.
        count: How many whole rows there are, each event once.
        broken: How many rows were found that do not match their digests.
        lost: How many undelivered events are known to have existed but are not among the rows.
    """

    def __init__(self, pages: Pages, found: FoundRows, books: Books) -> None:
        self._pages = pages
        self._found = found
        self.books = books
        self.count = found.count()
        self.broken = found.broken()
        self.lost = _lost(found, books.account, pages.bytes // _LEAST_BYTES)

    def rows(self) -> Iterator[Row]:
        """Yield the whole rows in order of seq, reading each of them again."""
        for place in self._found.chosen():
            row = self._row(place)
            if row is not None:
                yield row

    def _row(self, place: Place) -> Row | None:
        cell = self._pages.cell(place.page, place.at)
        values = None if cell is None else _values(cell.record)
        return None if values is None else make_row(place.seq, values)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Salvage]:
    """Lend what the outbox at `path` and its log still contain. Changes neither.

    The caller holds the write lock, so that nobody changes them meanwhile. It uses little memory,
    except for a part that is proportional to the log.

    Raises:
        OSError: if the file cannot be read at all.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        log: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            log = stack.enter_context(paths.log(path).open("rb"))
        # The page size in the header may be damaged itself.
        sizes = {*USUAL_PAGE_BYTES, page_bytes(file)}
        tries = [_search(Pages(file, log, size), stack) for size in sorted(sizes)]
        yield max(tries, key=lambda found: found.count)


def _search(pages: Pages, stack: contextlib.ExitStack) -> Salvage:
    found = stack.enter_context(contextlib.closing(FoundRows()))
    books = Books()
    for cell in pages.cells():
        values = _values(cell.record)
        if values is None:
            continue
        if len(values) >= FEWEST:
            row = make_row(cell.rowid, values)
            place = Place(cell.page, cell.at, cell.rowid)
            found.add(place, row.event, delivered=row.delivered_at_ms is not None)
        elif len(values) == _STATE_LENGTH and is_time(values[_LAST_SUCCESS]):
            books.last_success_ms = max(books.last_success_ms or 0, values[_LAST_SUCCESS])
        elif len(values) == 5 and values[4] and _are(values[1:4], str, str, str):
            if books.client_id is None:
                _, _, books.client_id, books.base_url, _ = values
        elif len(values) in _GAP_LENGTHS and isinstance(values[1], int) and _is_digest(values[2]):
            found.add_gap(cell.rowid, values[1])
        elif len(values) in _ENTRY_LENGTHS and _are(values[:2], str, int):
            books.account.setdefault(*values[:2])
    found.choose()
    return Salvage(pages, found, books)


def _lost(found: FoundRows, books: dict[str, int], most: int) -> int:
    """Return how many undelivered events are missing, as far as the bookkeeping can be read.

    Without the account, every missing row that was not removed on purpose counts. The newest seq
    that it names is not believed if the files have no room for so many events after those found.
    """
    last = found.last_seq()
    if last < books.get(ledger.STORED, 0) <= last + most:
        last = books[ledger.STORED]
    if ledger.DELIVERED in books:
        settled = sum(
            count
            for entry, count in books.items()
            if entry in (ledger.DELIVERED, ledger.SKIPPED) or entry.startswith(ledger.DISCARDED)
            if entry.removeprefix(ledger.DISCARDED) not in ledger.WITHOUT_SEQ
        )
        return max(0, last - settled - found.undelivered())
    return max(0, last - found.removed() - found.count())


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == len(canonical.GENESIS)


def _are(values: list[Any], *types: type) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(values, types, strict=True))


def _values(record: bytes) -> list[Any] | None:
    """Return the values of a record (sqlite.org/fileformat2.html, section 2.1); None if invalid."""
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
