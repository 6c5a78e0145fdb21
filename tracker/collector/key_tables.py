"""The tables about API keys beside `tables.api_keys`: what changed, and when each was used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text, and_, or_

from tracker.collector.tables import MAX_ID_LENGTH, api_keys, metadata

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

key_changes = Table(
    "key_changes",
    metadata,
    Column(
        "id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("change", String(MAX_ID_LENGTH), nullable=False),
    Column("key_id", BigInteger, nullable=False),
    # Empty for an operator's key.
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("changed_by", String(MAX_ID_LENGTH), nullable=False),
    Column("detail", Text),
    Index("ix_key_changes_client", "client_id", "id"),
    sqlite_autoincrement=True,
)
"""Every change of a key since there is this table; never a key, and never its hash."""

key_uses = Table(
    "key_uses",
    metadata,
    Column("key_id", BigInteger, primary_key=True, autoincrement=False),
    Column("last_used_at_ms", BigInteger, nullable=False),
)
"""When each key was last used, to some minutes.

A table of its own: no use writes to the row of a key, which a revocation has to write.
"""


def are_valid(now_ms: int) -> ColumnElement[bool]:
    """Return the condition that keys have neither expired nor been revoked."""
    expires = api_keys.c.expires_at_ms
    return and_(api_keys.c.revoked_at_ms.is_(None), or_(expires.is_(None), expires > now_ms))
