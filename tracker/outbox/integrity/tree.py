"""The Merkle tree over the digests of all events, in order of seq, as the outbox keeps it.

It is hashed late, by the process that uploads: a logging call pays nothing for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tracker.evidence.tree import Frontier, TreeError
from tracker.outbox.store import removed_digests
from tracker.outbox.store.removed_digests import UNKNOWN, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

_AT_ONCE = 2_000
"""Events hashed in one transaction: some milliseconds."""

_DIGESTS = """
SELECT seq, digest FROM events WHERE seq BETWEEN ? AND ?
UNION ALL SELECT seq, digest FROM removed_digests WHERE seq BETWEEN ? AND ?
ORDER BY seq
"""
_STORE = """
INSERT INTO tree (id, frontier, unknown) VALUES (1, ?, ?)
ON CONFLICT (id) DO UPDATE SET frontier = excluded.frontier, unknown = excluded.unknown
"""


class StoredTree:
    """Digests and tiles in an outbox, as a `tracker.evidence.tree.Source`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def digests(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield seq and digest of the events that are known, in order, both ends included."""
        for seq, digest in self._connection.exec_driver_sql(_DIGESTS, (first, last) * 2):
            yield seq, digest if isinstance(digest, bytes) else decoded(digest)

    def tile(self, level: int, idx: int) -> bytes | None:
        """Return the hash of a full tile, or None if it is not kept."""
        found: bytes | None = self._connection.exec_driver_sql(
            "SELECT hash FROM tiles WHERE level = ? AND idx = ?", (level, idx)
        ).scalar()
        return found


def frontier(connection: Connection) -> Frontier:
    """Return the frontier of the tree, as far as it is hashed.

    Raises:
        TreeError: if it is damaged.
    """
    raw = connection.exec_driver_sql("SELECT frontier FROM tree").scalar()
    return Frontier() if raw is None else Frontier.from_bytes(raw)


def extend(transaction: Transaction) -> bool:
    """Hash the next events; return True if all are hashed.

    An event that is neither stored nor remembered is hashed as unknown, and noted: it was removed
    before there was a tree, or cut out by hand.

    Raises:
        TreeError: if the stored frontier is damaged.
    """
    connection = transaction.connection
    tree, last = frontier(connection), transaction.head[0]
    first, through = tree.size + 1, min(last, tree.size + _AT_ONCE)
    if first > through:
        return True
    digests = dict(StoredTree(connection).digests(first, through))
    absent = [seq for seq in range(first, through + 1) if seq not in digests]
    removed_digests.add(connection, ((seq, UNKNOWN) for seq in absent))
    tiles = tree.extend(digests.get(seq, UNKNOWN) for seq in range(first, through + 1))
    if tiles:
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO tiles (level, idx, hash) VALUES (?, ?, ?)",
            [(tile.level, tile.idx, tile.root) for tile in tiles],
        )
    unknown = _with(unknown_ranges(connection), absent)
    connection.exec_driver_sql(_STORE, (tree.to_bytes(), json.dumps(unknown) if unknown else None))
    removed_digests.drop_whole_tiles(connection, first, through)
    return through == last


def unknown_ranges(connection: Connection) -> list[list[int]]:
    """Return the first and last seq of each range of unknown events since the last checkpoint.

    Raises:
        TreeError: if the list is damaged.
    """
    noted = connection.exec_driver_sql("SELECT unknown FROM tree").scalar()
    try:
        return [[first, last] for first, last in json.loads(noted or "[]")]
    except (ValueError, TypeError):
        raise TreeError("the stored list of unknown events is damaged") from None


def _with(ranges: list[list[int]], seqs: list[int]) -> list[list[int]]:
    for seq in seqs:
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
    return ranges
