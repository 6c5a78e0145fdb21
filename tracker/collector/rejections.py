"""Refused events, which are noted so that they do not count as lost when a client drops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, distinct, exists, func, or_, select

from tracker.collector.tables import MAX_ID_LENGTH, events, gaps, heads, rejections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Select

    from tracker.collector.batch import Rejection

_MAX_MESSAGE = 1_000
_FETCH_ROWS = 1_000
FIELDS = ("outbox_id", "seq", "event_id", "code", "message", "rejected_at_ms")
"""The fields of a rejection."""


def note(
    connection: Connection,
    client_id: str,
    outbox_id: str,
    rejected: tuple[Rejection, ...],
    now_ms: int,
) -> None:
    """Store the rejections of a batch; those that are already stored do not change."""
    sign = "?" if connection.dialect.name == "sqlite" else "%s"
    places = ", ".join([sign] * 7)
    rows = [
        (
            client_id,
            outbox_id,
            rejection.seq,
            _storable(rejection.event_id)[:MAX_ID_LENGTH],
            rejection.code,
            _storable(rejection.message)[:_MAX_MESSAGE],
            now_ms,
        )
        for rejection in rejected
    ]
    connection.exec_driver_sql(
        f"INSERT INTO rejections (client_id, {', '.join(FIELDS)}) VALUES ({places}) "  # noqa: S608 - our own names
        "ON CONFLICT (client_id, outbox_id, seq, event_id) DO NOTHING",
        rows,
    )


def newest(
    connection: Connection, client_id: str, limit: int, before: int | None
) -> tuple[list[dict[str, Any]], int | None]:
    """Return a page of rejections, newest first, and the `before` of the next page.

    Rejections whose event has been accepted since are left out.
    """
    column = rejections.c
    query = select(column.id, *(column[name] for name in FIELDS)).where(
        column.client_id == client_id, ~_settled()
    )
    if before is not None:
        query = query.where(column.id < before)
    rows = list(connection.execute(query.order_by(column.id.desc()).limit(limit + 1)).mappings())
    page = [{name: row[name] for name in FIELDS} for row in rows[:limit]]
    return page, rows[limit - 1]["id"] if len(rows) > limit else None


def refused(connection: Connection, client_id: str, outbox_id: str) -> Iterator[tuple[int, str]]:
    """Yield the seq of every refused event of an outbox and a reason, in ascending order of seq."""
    column = rejections.c
    query: Select[Any] = (
        select(column.seq, func.min(column.code))
        .where(column.client_id == client_id, column.outbox_id == outbox_id, column.seq > 0)
        .where(~_settled())
        .group_by(column.seq)
        .order_by(column.seq)
        .execution_options(yield_per=_FETCH_ROWS)
    )
    with connection.execute(query) as result:
        yield from map(tuple, result)


def numbers(
    connection: Connection, client_id: str | None
) -> dict[tuple[str, str], tuple[int, int]]:
    """Return of each outbox how many numbers were refused, and the highest of them.

    By its account: a number that an event has, or had that was deleted here, is left out.

    Args:
        connection: A transaction.
        client_id: The client of the outboxes, or None for all.
    """
    column, gap = rejections.c, gaps.c
    outbox = (column.client_id, column.outbox_id)
    is_gap = exists().where(
        gap.client_id == column.client_id,
        gap.outbox_id == column.outbox_id,
        column.seq.between(gap.first_seq, gap.last_seq),
    )
    of_it = (heads.c.client_id == column.client_id, heads.c.outbox_id == column.outbox_id)
    query = (
        select(*outbox, func.count(distinct(column.seq)), func.max(column.seq))
        .join(heads, and_(*of_it))
        .where(column.seq > 0, ~_settled(), or_(column.seq > heads.c.highest_seq, is_gap))
        .group_by(*outbox)
    )
    if client_id is not None:
        query = query.where(column.client_id == client_id)
    return {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(query)}


def _settled() -> Any:
    return exists(
        select(events.c.id).where(
            events.c.client_id == rejections.c.client_id,
            events.c.event_id == rejections.c.event_id,
        )
    )


def _storable(text: str) -> str:
    """Return text that both databases can store."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
