"""`Writer`: writes a sealed file, entry by entry."""

from __future__ import annotations

import hashlib
import json
from typing import IO, TYPE_CHECKING, Any

from tracker.sealed.form import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.sealed.seal import Seal

_END_ROOM = 1024
"""Bytes that are certainly enough for the last line and its seal, with a single key."""


class Writer:
    """Writes the header at once, then each entry, and at last the end; the caller owns the file.

    Args:
        file: An empty file.
        kind: ``tracker-bundle`` or ``tracker-receipts``.
        seals: The keys that seal it, each of which is enough to read it.
        header: What the file says of itself.
    """

    def __init__(
        self, file: IO[bytes], kind: str, seals: Sequence[Seal], header: Mapping[str, Any]
    ) -> None:
        self._file = file
        self._seals = seals
        self._hash = hashlib.sha256()
        self.size = 0
        self.entries = 0
        self._put(f"{kind} {VERSION}\n".encode())
        self._put(_line({**header, "keys": [seal.name for seal in seals]}))
        self._seal()

    def add(self, head: Mapping[str, Any], content: bytes) -> None:
        """Write an entry: a line about it, its content, and the seal over all that comes before."""
        self._put(_line({"bytes": len(content), **head}))
        self._put(content)
        self._put(b"\n")
        self._seal()
        self.entries += 1

    def room_for(self, head: Mapping[str, Any], content: bytes) -> int:
        """Return the size that the whole file would have at most with this entry as the last."""
        line = _line({"bytes": len(content), **head})
        return self.size + len(line) + len(content) + 1 + 65 * len(self._seals) + _END_ROOM

    def end(self, said: Mapping[str, Any]) -> None:
        """Write the last line, with the number of entries and the checksum of all before it."""
        checksum = self._hash.hexdigest()
        self._put(_line({"end": True, "entries": self.entries, **said, "sha256": checksum}))
        self._seal()

    def _seal(self) -> None:
        digest = self._hash.digest()
        self._put(" ".join(seal.over(digest) for seal in self._seals).encode() + b"\n")

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)


def _line(value: Mapping[str, Any]) -> bytes:
    # ASCII: an id may contain a lone surrogate, which has to be escaped.
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
