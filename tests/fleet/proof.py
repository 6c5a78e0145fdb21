"""The proof by SQL: what has a receipt is there, once, without a gap, in an unbroken chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    from tests.fleet.devices import Receipt

_MISSING = """
SELECT count(*) FROM receipts WHERE NOT EXISTS (
    SELECT 1 FROM events
    WHERE events.client_id = receipts.client_id AND events.event_id = receipts.event_id)
"""
_TWICE = """
SELECT count(*) FROM (
    SELECT 1 FROM events GROUP BY client_id, event_id HAVING count(*) > 1) AS twice
"""
_GAPS = """
SELECT count(*) FROM (
    SELECT count(*) AS events, min(seq) AS first, max(seq) AS last, count(DISTINCT seq) AS numbers
    FROM events GROUP BY client_id, outbox_id) AS outboxes
WHERE NOT (first = 1 AND last = events AND numbers = events)
"""
_BROKEN = """
SELECT count(*) FROM (
    SELECT chain, digest,
        coalesce(lag(chain) OVER (PARTITION BY client_id, outbox_id ORDER BY seq),
                 repeat('0', 64)) AS former
    FROM events) AS links
WHERE chain <> encode(sha256(convert_to(former || digest, 'UTF8')), 'hex')
"""
_HEADS = """
SELECT count(*) FROM (
    SELECT client_id, outbox_id, count(*) AS found, max(seq) AS last
    FROM events GROUP BY client_id, outbox_id) AS outboxes
LEFT JOIN heads USING (client_id, outbox_id)
WHERE (counted, events, highest_seq, missing, forked, breaks_at)
    IS DISTINCT FROM (version, found, last, 0::bigint, false, null::bigint)
"""
_COUNTS = "SELECT count(*), count(DISTINCT (client_id, outbox_id)) FROM events"


class Proof(NamedTuple):
    """What is wrong: nothing, if all of these are 0.

    Attributes:
        lost: Events with a receipt that are not there.
        twice: Events that are there more than once.
        outboxes_with_gaps: Outboxes whose numbers are not 1, 2, 3 … to the last.
        broken_links: Events whose chain does not follow from the one before.
        heads_that_differ: Outboxes whose account is not that of their events.
    """

    lost: int
    twice: int
    outboxes_with_gaps: int
    broken_links: int
    heads_that_differ: int


NOTHING_WRONG = Proof(0, 0, 0, 0, 0)


def prove(connection: Connection[Any], receipts: Iterable[Receipt]) -> Proof:
    """Compare a database with receipts."""
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE receipts (client_id text, event_id text)"
                           " ON COMMIT DROP")  # fmt: skip
        with connection.cursor() as cursor, cursor.copy("COPY receipts FROM STDIN") as copy:
            for receipt in receipts:
                copy.write_row(receipt)
        connection.execute("ANALYZE receipts")
        return Proof(*(_number(connection, query)
                       for query in (_MISSING, _TWICE, _GAPS, _BROKEN, _HEADS)))  # fmt: skip


def counts(connection: Connection[Any]) -> tuple[int, int]:
    """Return how many events and outboxes are there."""
    row = connection.execute(_COUNTS).fetchone()
    assert row is not None
    return row[0], row[1]


def _number(connection: Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])
