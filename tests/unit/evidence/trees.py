"""A tree as RFC 9162 defines it, word by word, and digests to build it of."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def digest(seq: int) -> bytes:
    return hashlib.sha256(b"event %d" % seq).digest()


def defined_root(leaves: list[bytes]) -> bytes:
    """The Merkle Tree Hash of section 2.1.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    both = defined_root(leaves[:half]) + defined_root(leaves[half:])
    return hashlib.sha256(b"\1" + both).digest()


class Kept:
    """Digests and tiles as an outbox keeps them; what is removed is gone."""

    def __init__(self, size: int) -> None:
        self.of = {seq: digest(seq) for seq in range(1, size + 1)}
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.read = 0

    def digests(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        for seq in range(first, last + 1):
            if seq in self.of:
                self.read += 1
                yield seq, self.of[seq]

    def tile(self, level: int, idx: int) -> bytes | None:
        return self.tiles.get((level, idx))
