"""How many events of each outbox are here, and how many are missing: of all outboxes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import exists, or_, select, tuple_

from tracker.collector import derived, rejections
from tracker.collector import discarded as discarded_ranges
from tracker.collector.accounts import gaps_of
from tracker.collector.integrity import Walk, report_of, state
from tracker.collector.tables import NOWHERE, heads
from tracker.collector.tables import rejections as rejections_table

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, RowMapping

    from tracker.collector.integrity import Chain
    from tracker.discards import Range


@dataclass(frozen=True)
class OutboxCount:
    """What of an outbox is here.

    Attributes:
        client_id: Its client.
        outbox_id: Its id.
        events: Number of events.
        highest_seq: The highest seq of an event or a refusal; 0 if there are none.
        missing: Number of seqs up to there that have neither.
        refused: Number of seqs of refused events that no other event has.
        discarded: Number of missing seqs that the outbox has named as given up.
        forked: Whether two events have one seq, or two heads contradict one another.
        last_received_ms: When an event was last received, Unix milliseconds; None if none was.
        received_directly: As in `integrity.OutboxReport`.
        chain: As in a report on the outbox, but for its heads.
        checked_through_seq: Up to where that was.
        checked_at_ms: When all events up to there were last read, Unix milliseconds, or None.
    """

    client_id: str
    outbox_id: str
    events: int
    highest_seq: int
    missing: int
    refused: int
    discarded: int
    forked: bool
    last_received_ms: int | None
    received_directly: bool
    chain: Chain
    checked_through_seq: int
    checked_at_ms: int | None


class Place(NamedTuple):
    """An outbox in the order of first receipt.

    Attributes:
        place: The id of its first event, or `NOWHERE` if none is here.
        outbox_id: Its id.
    """

    place: int
    outbox_id: str


def places(connection: Connection, client_id: str, after: Place, limit: int) -> list[Place]:
    """Return the outboxes of a client of which an event or a refusal is here.

    Args:
        connection: A transaction.
        client_id: The client.
        after: Only outboxes with a later place.
        limit: Maximum number of outboxes.
    """
    head = heads.c
    place = (head.place, head.outbox_id)
    query = (
        select(*place)
        .where(head.client_id == client_id, tuple_(*place) > tuple(after))
        .where(or_(head.place < NOWHERE, _is_refused()))
        .order_by(*place)
        .limit(limit)
    )
    return [Place(*row) for row in connection.execute(query)]


def counts(connection: Connection, client_id: str | None) -> list[OutboxCount]:
    """Return the counts of the outboxes of a client, or of all, as their accounts have them."""
    mine = [] if client_id is None else [heads.c.client_id == client_id]
    head = heads.c
    query = (
        select(heads).where(*mine, head.client_id != "").order_by(head.client_id, head.outbox_id)
    )
    refused = rejections.numbers(connection, client_id)
    given_up: dict[str, dict[str, list[Range]]] = {}
    found = []
    for row in connection.execute(query).mappings():
        outbox = (row["client_id"], row["outbox_id"])
        number, highest = refused.get(outbox, (0, 0))
        if row["place"] == NOWHERE and not number:
            continue
        highest_seq = max(row["highest_seq"], highest)
        missing = row["missing"] + highest_seq - row["highest_seq"] - number
        discarded = 0
        if missing:
            if outbox[0] not in given_up:
                given_up[outbox[0]] = discarded_ranges.of_client(connection, outbox[0])
            ranges = given_up[outbox[0]].get(outbox[1])
            discarded = _discarded(connection, row, ranges) if ranges else 0
        found.append(_count(row, highest_seq, missing, number, discarded))
    return found


def _count(
    row: RowMapping, highest_seq: int, missing: int, refused: int, discarded: int
) -> OutboxCount:
    reused = row["reused"] is not None
    links = Walk(
        reused=[0] if reused else [], has_links=row["has_links"], breaks_at=row["breaks_at"]
    )
    return OutboxCount(
        row["client_id"],
        row["outbox_id"],
        row["events"],
        highest_seq,
        missing,
        refused,
        discarded,
        row["forked"],
        row["last_received_ms"],
        received_directly=row["outbox_id"] == derived.outbox_id_of(row["client_id"]),
        chain=state(links),
        checked_through_seq=row["highest_seq"],
        checked_at_ms=row["checked_at_ms"],
    )


def _discarded(connection: Connection, row: RowMapping, ranges: list[Range]) -> int:
    """Return how many missing numbers of an outbox are in these ranges."""
    outbox = (row["client_id"], row["outbox_id"])
    holes, refused = gaps_of(connection, *outbox), rejections.refused(connection, *outbox)
    return report_of(Walk(seq=row["highest_seq"]), holes, refused, ranges).discarded_events


def _is_refused() -> ColumnElement[bool]:
    refused = rejections_table.c
    return exists().where(
        refused.client_id == heads.c.client_id,
        refused.outbox_id == heads.c.outbox_id,
        refused.seq > 0,
    )
