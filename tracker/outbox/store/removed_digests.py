"""The digests of removed events, from which proofs of their neighbours in the tree are made.

A digest is kept until no event of its tile is left, for the hash of the tile then stands for all of
it. Those of the tile in which the head ends that the receiver signed last are kept as long as it is
the last: the next head is proved to extend it. A digest that is not known is kept as zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

TILE = 256
"""Events in a tile: those from seq 1 on, from seq 257 on, and so forth."""
UNKNOWN = bytes(32)
"""What stands for a digest that is not known. (No event has it.)"""

_SIZES = """
SELECT CAST(substr(frontier, 1, 8) AS BLOB),
  coalesce(CASE WHEN json_valid(witness) THEN CAST(json_extract(witness, '$[0]') AS INTEGER) END, 0)
FROM tree
"""
_KEEP = "INSERT OR REPLACE INTO removed_digests (seq, digest) VALUES (?, ?)"


def keep(connection: Connection, first: int, last: int) -> None:
    """Keep the digests of stored events from `first` to `last`, which are about to be removed."""
    rows = connection.exec_driver_sql(
        "SELECT seq, digest FROM events WHERE seq BETWEEN ? AND ?", (first, last)
    ).all()
    add(connection, ((seq, decoded(digest)) for seq, digest in rows))


def add(connection: Connection, digests: Iterable[tuple[int, bytes]]) -> None:
    """Keep digests by their seq."""
    if found := list(digests):
        connection.exec_driver_sql(_KEEP, found)


def drop_whole_tiles(connection: Connection, first: int, last: int) -> None:
    """Drop the digests in the tiles from `first` to `last` that are hashed and not needed."""
    hashed, signed = connection.exec_driver_sql(_SIZES).first() or (b"", 0)
    size = int.from_bytes(hashed, "big")
    for start in range((first - 1) // TILE * TILE, last, TILE):
        if start + TILE <= size and not start < signed < start + TILE:
            connection.exec_driver_sql(
                "DELETE FROM removed_digests WHERE seq > ? AND seq <= ? AND NOT EXISTS "
                "(SELECT 1 FROM events WHERE seq > ? AND seq <= ?)",
                (start, start + TILE) * 2,
            )


def decoded(digest: Any) -> bytes:
    """Return a stored digest as 32 bytes; `UNKNOWN` if somebody has changed it to anything else."""
    try:
        raw = bytes.fromhex(digest)
    except (TypeError, ValueError):
        return UNKNOWN
    return raw if len(raw) == len(UNKNOWN) else UNKNOWN
