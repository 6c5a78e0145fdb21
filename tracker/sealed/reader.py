"""`Reader`: reads a sealed file, and believes nothing of it that has no valid seal."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tracker.sealed.form import MOST_CONTENT, MOST_LINE, VERSION, SealError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.sealed.seal import Seal


class Entry(NamedTuple):
    """One entry: the line about it, and its content."""

    head: dict[str, Any]
    content: bytes


class Reader:
    """Reads a sealed file as often as it is asked to, with one entry of it in memory.

    Args:
        file: The file, which can be read from its beginning again. The caller owns it.
        kind: The kind that it must be of.

    Raises:
        SealError: if it is of another kind or version, or does not begin as such a file.
    """

    def __init__(self, file: IO[bytes], kind: str) -> None:
        self._file = file
        self._kind = kind
        self._hash = hashlib.sha256()
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._hash = hashlib.sha256()
        first = self._file.readline(len(self._kind) + 16)
        self._hash.update(first)
        kind, _, version = first.rstrip(b"\n").partition(b" ")
        if kind != self._kind.encode():
            raise SealError(f"it is no file of the kind {self._kind}")
        if version != b"%d" % VERSION:
            raise SealError(
                f"it is a {self._kind} of another version than {VERSION}, the one known here"
            )
        header = self._object()
        names = header.get("keys")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SealError("it is damaged: its header names no keys")
        self.header = header
        """What the file says of itself: not to be believed before `entries` has read it."""
        self.keys: list[str] = names
        """The names of the keys that it says it is sealed with."""

    def check(self, seal: Seal) -> None:
        """Read the whole file.

        Raises:
            SealError: if it is not, as a whole and unchanged, what somebody with the key has made.
            OSError: if it cannot be read.
        """
        for _ in self.entries(seal):
            pass

    def entries(self, seal: Seal) -> Iterator[Entry]:
        """Yield each entry, with a valid seal over it and everything before it, in order.

        Raises:
            SealError: at the first that has none, or at the end if the file is not whole; also if
                the key is not among `keys`.
            OSError: if it cannot be read.
        """
        self._begin()
        if seal.name not in self.keys:
            raise SealError("it is not sealed with this key")
        place = self.keys.index(seal.name)
        self._check_seal(seal, place)
        count = 0
        while True:
            checksum = self._hash.hexdigest()
            head = self._object()
            if head.get("end") is True:
                break
            content = self._content(head.get("bytes"))
            self._check_seal(seal, place)
            count += 1
            yield Entry(head, content)
        self._check_seal(seal, place)
        if head.get("entries") != count or head.get("sha256") != checksum or self._file.read(1):
            raise SealError("it is damaged: its end does not belong to the rest of it")

    def _object(self) -> dict[str, Any]:
        """Return the JSON object in the next line."""
        line = self._file.readline(MOST_LINE)
        self._hash.update(line)
        if not line.endswith(b"\n"):
            raise SealError("it is cut off or damaged")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise SealError("it is damaged: a line is not what it should be")
        return value

    def _content(self, size: object) -> bytes:
        if type(size) is not int or not 0 <= size <= MOST_CONTENT:
            raise SealError("it is damaged: an entry has no size, or too large a one")
        content = self._file.read(size + 1)
        self._hash.update(content)
        if len(content) <= size or not content.endswith(b"\n"):
            raise SealError("it is cut off or damaged")
        return content[:-1]

    def _check_seal(self, seal: Seal, place: int) -> None:
        expected = seal.over(self._hash.digest())
        size = 65 * len(self.keys)
        line = self._file.readline(size)
        self._hash.update(line)
        found = line.rstrip(b"\n").split(b" ")
        if len(found) != len(self.keys) or len(line) != size or not line.endswith(b"\n"):
            raise SealError("it is cut off or damaged")
        if not hmac.compare_digest(found[place], expected.encode()):
            raise SealError("a seal is not valid: the file was changed, damaged or forged")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to read, which is closed afterwards.

    Raises:
        SealError: if it is not a regular file: a pipe, for instance, can be read only once.
        OSError: if it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SealError("it is not a regular file")
        yield file
