"""The Merkle tree over the digests of an outbox, as far as it is needed to prove a leaf.

Leaf 0 is the event of seq 1. Not all digests have to be kept: of a tile, which
is 256 leaves (or 256 tiles of the level below), its root is enough unless a leaf in it is proved.
"""

from __future__ import annotations

import base64
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tracker.evidence.verifier import EMPTY_ROOT, leaf_hash, node_hash, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TILE = 256
"""Number of leaves of a tile of level 1, and of tiles of the level below in every other."""
_BITS = 8
_HASH = 32
UNKNOWN = bytes(32)
"""The digest that stands for an event whose own was removed before there was a tree."""


def encode_hashes(hashes: Iterable[bytes]) -> str:
    """Return hashes as base64, one after the other; `verifier.decode_hashes` reads them."""
    return base64.b64encode(b"".join(hashes)).decode()


class TreeError(Exception):
    """Digests or hashes that a proof needs are not there, or a stored frontier is damaged."""


class Tile(NamedTuple):
    """The root of a full tile: of the leaves from ``idx * 256 ** level`` on."""

    level: int
    idx: int
    root: bytes


class Source(Protocol):
    """What is kept of a tree; `Tree` reads it."""

    def digests(self, first: int, last: int) -> Iterable[tuple[int, bytes]]:
        """Return seq and raw digest of the events that are kept, in order, both ends included."""
        ...

    def tile(self, level: int, idx: int) -> bytes | None:
        """Return the root of a full tile, or None if it is not kept."""
        ...


class Frontier:
    """The roots of the largest full subtrees of a growing tree, at most 64: enough to extend it."""

    def __init__(self) -> None:
        self.size = 0
        """Number of leaves; the seq of the last one."""
        self._hashes: list[bytes] = []

    def extend(self, digests: Iterable[bytes]) -> list[Tile]:
        """Append leaves, and return the tiles that became full.

        Args:
            digests: Raw digests of 32 bytes, in order of seq.
        """
        tiles = []
        hashes, size = self._hashes, self.size
        for digest in digests:
            found, height = leaf_hash(digest), 0
            while size >> height & 1:
                found = node_hash(hashes.pop(), found)
                height += 1
                if height % _BITS == 0:
                    tiles.append(Tile(height // _BITS, size >> height, found))
            hashes.append(found)
            size += 1
        self.size = size
        return tiles

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self._hashes:
            return EMPTY_ROOT
        *rest, found = self._hashes
        for each in reversed(rest):
            found = node_hash(each, found)
        return found

    def to_bytes(self) -> bytes:
        """Return the frontier as bytes: the size in 8, then the hashes from the largest on."""
        return self.size.to_bytes(8, "big") + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Frontier:
        """Return the frontier that `to_bytes` made these bytes of.

        Raises:
            TreeError: if it did not.
        """
        frontier = cls()
        frontier.size = int.from_bytes(raw[:8], "big")
        frontier._hashes = [raw[at : at + _HASH] for at in range(8, len(raw), _HASH)]
        if len(raw) != 8 + _HASH * frontier.size.bit_count():
            raise TreeError("the stored frontier of the tree is damaged")
        return frontier


class Tree:
    """A tree of a certain size, of which proofs are made.

    Hashes that were computed are kept: make one for each head, and all proofs from it.

    Args:
        source: Where digests and tiles are read.
        size: Number of leaves: the seq of the last event.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.size = size
        self._source = source
        self._known: dict[tuple[int, int], bytes] = {}
        self._leaves: tuple[int, list[bytes]] = (0, [])

    def root(self) -> bytes:
        """Return the root.

        Raises:
            TreeError: if digests are missing that no tile replaces.
        """
        return self._hash(0, self.size) if self.size else EMPTY_ROOT

    def inclusion(self, seq: int) -> list[bytes]:
        """Return the path that proves the event of a seq: RFC 9162, section 2.1.3.1.

        Raises:
            TreeError: if the tree does not have that seq, or digests are missing.
        """
        if not 1 <= seq <= self.size:
            raise TreeError(f"seq {seq} is not in the tree of {self.size} events")
        path: list[bytes] = []
        start, stop, index = 0, self.size, seq - 1
        while stop - start > 1:
            middle = start + split(stop - start)
            if index < middle:
                path.append(self._hash(middle, stop))
                stop = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old_size: int) -> list[bytes]:
        """Return the path that proves that this tree extends itself at an older size.

        It is that of RFC 9162, section 2.1.4.1; for the empty tree and for this size it is empty.

        Raises:
            TreeError: if the tree is smaller than that, or digests are missing.
        """
        if not 0 <= old_size <= self.size:
            raise TreeError(f"a tree of {self.size} events does not extend one of {old_size}")
        path: list[bytes] = []
        start, stop, whole = 0, self.size, True
        while old_size not in (0, stop):
            middle = start + split(stop - start)
            if old_size <= middle:
                path.append(self._hash(middle, stop))
                stop = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._hash(start, stop))
        return path[::-1]

    def cover(self, seqs: Iterable[int]) -> list[bytes]:
        """Return the hashes that, with the leaves of these events, give the root.

        They are the roots of the largest subtrees without any of these leaves, from left to right.

        Raises:
            TreeError: if the tree does not have one of them, or digests are missing.
        """
        known = sorted({seq - 1 for seq in seqs})
        if known and not 0 <= known[0] <= known[-1] < self.size:
            raise TreeError(f"not all of these events are in the tree of {self.size} events")
        found: list[bytes] = []
        if self.size:
            self._cover(0, self.size, known, found)
        return found

    def _cover(self, start: int, stop: int, known: Sequence[int], found: list[bytes]) -> None:
        if not known:
            found.append(self._hash(start, stop))
        elif stop - start > 1:
            middle = start + split(stop - start)
            between = bisect_left(known, middle)
            self._cover(start, middle, known[:between], found)
            self._cover(middle, stop, known[between:], found)

    def _hash(self, start: int, stop: int) -> bytes:
        """Return the hash over the leaves from `start` to before `stop`."""
        if stop - start == 1:
            return self._leaf(start)
        found = self._known.get((start, stop)) or self._tile(start, stop)
        if found is None:
            middle = start + split(stop - start)
            found = node_hash(self._hash(start, middle), self._hash(middle, stop))
        self._known[start, stop] = found
        return found

    def _tile(self, start: int, stop: int) -> bytes | None:
        level, rest = divmod((stop - start).bit_length() - 1, _BITS)
        if rest or stop - start != TILE**level:
            return None
        return self._source.tile(level, start // (stop - start))

    def _leaf(self, index: int) -> bytes:
        """Return the hash of a leaf; the digests around it are read at once."""
        start = index - index % TILE
        if self._leaves[0] != start or not self._leaves[1]:
            stop = min(start + TILE, self.size)
            leaves = []
            for expected, (seq, digest) in enumerate(
                self._source.digests(start + 1, stop), start + 1
            ):
                if seq != expected:
                    break
                leaves.append(leaf_hash(digest))
            if len(leaves) != stop - start:
                raise TreeError(f"the digest of seq {start + len(leaves) + 1} is missing")
            self._leaves = (start, leaves)
        return self._leaves[1][index - start]
