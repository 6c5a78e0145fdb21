"""A stamp of the database: another one whenever reads may answer otherwise."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from tracker.collector.key_tables import are_valid
from tracker.collector.tables import (
    api_keys,
    checkpoints,
    events,
    heads,
    outbox_keys,
    rejections,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection


def stamp(connection: Connection, client_id: str | None) -> str:
    """Return the stamp for one client, or for all; see `Store.stamp`."""
    seen = [connection.execute(query).all() for query in _queries(client_id)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:32]


def _queries(client_id: str | None) -> list[Any]:
    """Return queries that read few rows; every batch changes the row of its outbox in `heads`."""
    # Rows of these are added, and never changed but for `heads` and keys.
    newest = (func.max(heads.c.checkpoint_id), func.max(heads.c.checked_at_ms))
    queries: list[Any] = [select(func.count(), func.sum(heads.c.version), *newest)]
    tables = [heads]
    queries += [select(func.max(table.c.id)) for table in (rejections, checkpoints, outbox_keys)]
    tables += [rejections, checkpoints, outbox_keys]
    queries.append(select(func.max(checkpoints.c.stamped_at_ms)))
    tables.append(checkpoints)
    if client_id is None:
        columns = (api_keys.c.revoked_at_ms, api_keys.c.expires_at_ms)
        changed = [each(column) for column in columns for each in (func.max, func.count)]
        # It changes as time goes on.
        valid = select(func.count()).where(are_valid(time.time_ns() // 1_000_000))
        keys = select(func.count(), *changed).select_from(api_keys)
        return [*queries, select(func.max(events.c.id)), keys, valid]
    return [
        query.where(table.c.client_id == client_id)
        for query, table in zip(queries, tables, strict=True)
    ]
