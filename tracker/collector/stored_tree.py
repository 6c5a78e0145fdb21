"""`StoredTree`: the tree of an outbox, as far as the collector got its digests."""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING

from sqlalchemy import select

from tracker.collector.tables import checkpoints, events
from tracker.evidence.tree import TILE, UNKNOWN
from tracker.evidence.verifier import leaf_hash, node_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

_READ_TOGETHER = 4_096
_MOST_TILES = 20_000

Tiles = dict[tuple[object, ...], bytes]
"""Roots of full tiles that were computed before, of all outboxes: what they cover never changes."""


class StoredTree:
    """Digests of one outbox, a `tracker.evidence.tree.Source`, read within one transaction.

    A number that the device says it has no digest for has the digest `UNKNOWN`, whatever the
    collector got. Of two events with one number, the one received first counts.

    Args:
        connection: The transaction.
        client_id: The client.
        outbox_id: The outbox.
        tiles: What was computed before; what is computed here is added.
    """

    def __init__(
        self, connection: Connection, client_id: str, outbox_id: str, tiles: Tiles
    ) -> None:
        self._connection = connection
        self._mine = (events.c.client_id == client_id, events.c.outbox_id == outbox_id)
        said = select(checkpoints.c.unknown).where(
            checkpoints.c.client_id == client_id,
            checkpoints.c.outbox_id == outbox_id,
            checkpoints.c.state == "cosigned",
            checkpoints.c.unknown.is_not(None),
        )
        found = connection.execute(said).scalars()
        self._unknown = sorted((first, last) for text in found for first, last in json.loads(text))
        self._tiles = tiles
        self._key = (client_id, outbox_id, *self._unknown)
        self._first = 0
        self._read: list[tuple[int, bytes]] = []

    def is_unknown(self, seq: int) -> bool:
        """Return True if the device had no digest for this number."""
        at = bisect_right(self._unknown, (seq, 2**63)) - 1
        return at >= 0 and seq <= self._unknown[at][1]

    def digests(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield number and digest of the events that are known, in order, both ends included."""
        while first <= last:
            start = first - (first - 1) % _READ_TOGETHER
            if self._first != start:
                self._first, self._read = start, self._digests(start)
            end = min(last, start + _READ_TOGETHER - 1)
            yield from ((seq, digest) for seq, digest in self._read if first <= seq <= end)
            first = end + 1

    def tile(self, level: int, idx: int) -> bytes | None:
        """Return the root of a full tile, or None if digests in it are missing."""
        key = (*self._key, level, idx)
        found = self._tiles.get(key)
        if found is None:
            found = self._root(level, idx)
            if found is not None:
                if len(self._tiles) >= _MOST_TILES:
                    self._tiles.clear()
                self._tiles[key] = found
        return found

    def _root(self, level: int, idx: int) -> bytes | None:
        parts: Sequence[bytes | None]
        if level == 1:
            leaves = self.digests(idx * TILE + 1, (idx + 1) * TILE)
            parts = [leaf_hash(digest) for _, digest in leaves]
        else:
            parts = [self.tile(level - 1, idx * TILE + at) for at in range(TILE)]
        row = [each for each in parts if each is not None]
        if len(row) != TILE:
            return None
        while len(row) > 1:
            row = [node_hash(*row[at : at + 2]) for at in range(0, len(row), 2)]
        return row[0]

    def _digests(self, start: int) -> list[tuple[int, bytes]]:
        end = start + _READ_TOGETHER - 1
        query = (
            select(events.c.seq, events.c.digest)
            .where(*self._mine, events.c.seq.between(start, end))
            .order_by(events.c.seq.desc(), events.c.id.desc())
        )
        # The last of those with one number replaces the others: the one received first.
        found = {seq: bytes.fromhex(digest) for seq, digest in self._connection.execute(query)}
        for first, last in self._unknown:
            for seq in range(max(first, start), min(last, end) + 1):
                found[seq] = UNKNOWN
        return sorted(found.items())
