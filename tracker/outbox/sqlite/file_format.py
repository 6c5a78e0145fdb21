"""The pages of an outbox as they are on disk, read without SQLite.

SQLite gives up a whole table if one page on the way to it is damaged, and drops everything in a
write-ahead log after the first frame with a wrong checksum. A salvage needs the rest. The formats
are described on sqlite.org/fileformat2.html, sections 1.6 (pages), 1.8 (pointer map) and 4
(write-ahead log).
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from tracker.outbox.files import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USUAL_PAGE_BYTES = (1024, 4096)
"""The page sizes of outboxes: of new ones, and of those of earlier versions."""

_LEAF = 0x0D
_FREE = 2  # in the pointer map
_LOG_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_LITTLE, _BIG = 0x377F0682, 0x377F0683  # the log's magic: the byte order of its checksums


class Frame(NamedTuple):
    """One page in the write-ahead log.

    Attributes:
        page: Its number in the file.
        commits: Whether it ends a transaction.
        sound: Whether its checksum is right, given that of the frame before.
        offset: Where its page begins in the log.
    """

    page: int
    commits: bool
    sound: bool
    offset: int


class Cell(NamedTuple):
    """One row of a table.

    Attributes:
        rowid: Its rowid.
        record: Its record, as bytes.
        page: The page on which it begins: its number, or its negative offset in the log.
        at: Its offset on the page.
    """

    rowid: int
    record: bytes
    page: int
    at: int


def page_bytes(file: BinaryIO) -> int:
    """Return the page size in the file's header, or the usual one if that is not a valid size."""
    file.seek(16)
    size = int.from_bytes(file.read(2), "big")
    return _valid(65536 if size == 1 else size)


def log_page_bytes(log: BinaryIO) -> int:
    """Return the page size in the header of a log, or the usual one if that is not a valid size."""
    log.seek(8)
    return _valid(int.from_bytes(log.read(4), "big"))


def _valid(size: int) -> int:
    return size if 512 <= size <= 65536 and size & (size - 1) == 0 else USUAL_PAGE_BYTES[0]


def frames(log: BinaryIO, size: int) -> list[Frame]:
    """Return the frames of the log's current generation up to the last commit, sound or not.

    Unlike in SQLite, a damaged frame does not end the list: a checksum builds on the one stored
    before it, so later frames can still be checked.
    """
    log.seek(0)
    header = log.read(_LOG_HEADER.size)
    if len(header) < _LOG_HEADER.size:
        return []
    magic, _, _, _, *salts, first, second = _LOG_HEADER.unpack(header)
    order = ">" if magic == _BIG else "<"
    words = struct.Struct(f"{order}{size // 4}I")
    before = (first, second)
    found: list[Frame] = []
    end = 0
    for offset in itertools.count(_LOG_HEADER.size, _FRAME_HEADER.size + size):
        head = log.read(_FRAME_HEADER.size)
        page = log.read(size)
        if len(head) < _FRAME_HEADER.size or len(page) < size:  # the log may grow in between
            break
        number, pages, *its_salts, first, second = _FRAME_HEADER.unpack(head)
        if its_salts == salts:
            start = _checksum(struct.unpack(f"{order}2I", head[:8]), before)
            sound = _checksum(words.unpack(page), start) == (first, second)
            found.append(Frame(number, pages > 0, sound, offset + _FRAME_HEADER.size))
            end = len(found) if pages else end
        before = (first, second)
    return found[:end]


def _checksum(words: tuple[int, ...], start: tuple[int, int]) -> tuple[int, int]:
    one, two = start
    numbers = iter(words)
    for even, odd in zip(numbers, numbers, strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two


def log_is_cut(path: Path) -> bool:
    """Return True if the log of `path` goes on after a damaged frame; SQLite would not say so.

    A log that merely ends in the middle of a transaction, as after a crash, is not cut. Nor is one
    whose index, kept by processes that are still alive, ends earlier: a killed process wrote the
    later frames, and the next writer has begun to overwrite them.
    """
    try:
        log = paths.log(path).open("rb")
    except FileNotFoundError:
        return False
    with log:
        salts = log.read(_LOG_HEADER.size)[16:24]
        found = frames(log, log_page_bytes(log))
    broken = next((index for index, frame in enumerate(found) if not frame.sound), len(found))
    if not any(frame.sound and frame.commits for frame in found[broken:]):
        return False
    counted = _counted_frames(path, salts)
    return counted is None or counted > broken


def _counted_frames(path: Path, salts: bytes) -> int | None:
    """Return how many frames the log's index counts; None if it belongs to another log.

    The layout is described on sqlite.org/walformat.html, "The WAL-Index Header". Must not be called
    for a file that this process has open: see `tracker.outbox.files.open_files`.
    """
    try:
        header = paths.index(path).read_bytes()[:48]
    except FileNotFoundError:
        return None
    if len(header) < 48 or header[32:40] != salts:
        return None
    return int.from_bytes(header[16:20], sys.byteorder)


class Pages:
    """The pages of a file, overlaid with those in its log. Uses the two open files, owns neither.

    Attributes:
        size: Bytes of a page.
        bytes: Bytes of file and log together.
    """

    def __init__(self, file: BinaryIO, log: BinaryIO | None, size: int) -> None:
        self.size = size
        self._file = file
        self._log = log
        length = file.seek(0, os.SEEK_END)
        self.bytes = length + (log.seek(0, os.SEEK_END) if log is not None else 0)
        self._count = -(-length // size)
        self._last = 0, b""
        self._newest: dict[int, int] = {}
        self._doubtful: list[Frame] = []
        for frame in frames(log, size) if log is not None else ():
            if frame.sound:
                self._newest[frame.page] = frame.offset
            else:
                self._doubtful.append(frame)

    def cells(self) -> Iterator[Cell]:
        """Yield the rows of all tables on all pages in use; some may be damaged.

        Pages of frames with a wrong checksum come last, after any other copy of the same row.
        """
        for number in range(1, max([self._count, *self._newest]) + 1):
            if not self._is_free(number):
                yield from self._cells_of(self._page(number), number, number)
        for frame in self._doubtful:
            yield from self._cells_of(self._logged(frame.offset), frame.page, -frame.offset)

    def cell(self, page: int, at: int) -> Cell | None:
        """Return a cell that `cells` yielded, read again."""
        if self._last[0] != page:
            self._last = page, self._page(page) if page > 0 else self._logged(-page)
        return self._cell(self._last[1], page, at)

    def _page(self, number: int) -> bytes:
        if number in self._newest:
            return self._logged(self._newest[number])
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)

    def _logged(self, offset: int) -> bytes:
        if self._log is None:
            return b""
        self._log.seek(offset)
        return self._log.read(self.size)

    def _is_free(self, number: int) -> bool:
        """Look it up in the pointer map: rows on a free page were moved or removed."""
        covered = self.size // 5 + 1
        place = (number - 2) % covered  # 0: the page is part of the map itself
        if number < 3 or place == 0:
            return number == 2
        return self._page(number - place)[(place - 1) * 5 :][:1] == bytes([_FREE])

    def _cells_of(self, page: bytes, number: int, place: int) -> Iterator[Cell]:
        start = 100 if number == 1 else 0
        if page[start : start + 1] != bytes([_LEAF]):
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        for pointer in range(start + 8, min(start + 8 + 2 * count, len(page) - 1), 2):
            cell = self._cell(page, place, int.from_bytes(page[pointer : pointer + 2], "big"))
            if cell is not None:
                yield cell

    def _cell(self, page: bytes, place: int, begins: int) -> Cell | None:
        at = begins
        try:
            length, at = varint(page, at)
            rowid, at = varint(page, at)
        except IndexError:
            return None
        here = self._local(length)
        record = page[at : at + here]
        if here < length:
            record += self._overflow(int.from_bytes(page[at + here :][:4], "big"), length - here)
        if len(record) != length:
            return None
        return Cell(rowid - 2**64 if rowid >= 2**63 else rowid, record, place, begins)

    def _local(self, length: int) -> int:
        """Return how many bytes of a record are on its leaf page (section 1.6)."""
        most = self.size - 35
        if length <= most:
            return length
        least = (self.size - 12) * 32 // 255 - 23
        wanted = least + (length - least) % (self.size - 4)
        return wanted if wanted <= most else least

    def _overflow(self, number: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length > 0 and number:
            page = self._page(number)
            if len(page) < self.size:
                break
            parts.append(page[4 : 4 + length])
            length -= len(parts[-1])
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer of up to 9 bytes at `at`, and the offset after it.

    Raises:
        IndexError: if the data ends before it does.
    """
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1
