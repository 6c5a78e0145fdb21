"""The collector's tables, for both SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    column,
    false,
    literal_column,
    select,
)

from tracker.queries.source import COLUMNS

MAX_ID_LENGTH = 256
"""Maximum length of a client, agent, session or user id and of an event's type."""
UUID_LENGTH = 36
HEX_LENGTH = 64
TRACE_ID_LENGTH = 32
SEAL_LENGTH = 128
SCOPES_LENGTH = 64

NOWHERE = 2**63 - 1
"""The `place` of an outbox of which no event is here."""

# SQLite increments only a column of exactly the type INTEGER.
_RowId = BigInteger().with_variant(Integer(), "sqlite")
# In PostgreSQL, partitions are found by it: in the order of its bytes, whatever the database's is.
_EventId = String(UUID_LENGTH).with_variant(String(UUID_LENGTH, collation="C"), "postgresql")

metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    # Empty for an operator's key, which belongs to no client.
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("key_hash", String(HEX_LENGTH), nullable=False, unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    Column("label", String(MAX_ID_LENGTH)),
    Column("operator", Boolean, nullable=False, server_default=false()),
    Column("expires_at_ms", BigInteger),
    # What it is allowed to do, as in "send read"; null for what its kind was before there were
    # scopes, as in the rows of the former version.
    Column("scopes", String(SCOPES_LENGTH)),
    Index("ix_api_keys_client", "client_id", "id"),
    sqlite_autoincrement=True,
)
"""SHA-256 hashes of the keys; a key itself is stored nowhere."""

events = Table(
    "events",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("outbox_id", String(UUID_LENGTH), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("event_id", _EventId, nullable=False),
    Column("type", String(MAX_ID_LENGTH), nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("agent_id", String(MAX_ID_LENGTH)),
    Column("session_id", String(MAX_ID_LENGTH)),
    Column("user_id", String(MAX_ID_LENGTH)),
    Column("data", Text, nullable=False),
    Column("digest", String(HEX_LENGTH), nullable=False),
    Column("chain", String(HEX_LENGTH), nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("context", Text),
    Column("trace", Text),
    # The salt and zeros; after an erasure the commitments, which take as much room.
    Column("seal", String(SEAL_LENGTH)),
    # That of `trace`, if it is one.
    Column("trace_id", String(TRACE_ID_LENGTH)),
    UniqueConstraint("client_id", "event_id", name="uq_events_event_id"),
    # Not unique: after damage, an outbox may use a seq for another event.
    Index("ix_events_outbox", "client_id", "outbox_id", "seq"),
    # Used only where a query asks for it, as `queries.source.by_position` does: with a whole index,
    # SQLite would go through all of a client's events for the newest few of some type.
    Index(
        "ix_events_client",
        "client_id",
        "id",
        sqlite_where=literal_column("id > 0"),
        postgresql_where=literal_column("id > 0"),
    ),
    Index("ix_events_session", "client_id", "session_id"),
    Index("ix_events_type", "client_id", "type", "timestamp_ms"),
    Index(
        "ix_events_trace",
        "client_id",
        "trace_id",
        sqlite_where=column("trace_id").is_not(None),
        postgresql_where=column("trace_id").is_not(None),
    ),
    # A reader that remembers the highest id it has seen must never get that id again.
    sqlite_autoincrement=True,
)
"""All received events in the order of receipt (`id`); `data` is canonical JSON text.

In PostgreSQL it is divided by `event_id`, and `id` is the primary key of each partition: see
`partitioning.layout`.
"""

heads = Table(
    "heads",
    metadata,
    Column("client_id", String(MAX_ID_LENGTH), primary_key=True),
    Column("outbox_id", String(UUID_LENGTH), primary_key=True),
    Column("version", BigInteger, nullable=False),
    # Whether a batch has used a seq of another event: two copies of the outbox send.
    Column("forked", Boolean, nullable=False, server_default=false()),
    # The row of `checkpoints` with the newest head that was cosigned for this client, or null.
    Column("checkpoint_id", BigInteger),
    # All that follows is the outbox's account; see `accounts.Account`. The version that it is of,
    # and whether all events are in it, or those up to the highest seq.
    Column("counted", BigInteger, nullable=False, server_default="0"),
    Column("whole", Boolean, nullable=False, server_default=false()),
    Column("events", BigInteger, nullable=False, server_default="0"),
    Column("highest_seq", BigInteger, nullable=False, server_default="0"),
    # How many numbers are in its `gaps`.
    Column("missing", BigInteger, nullable=False, server_default="0"),
    Column("last_received_ms", BigInteger),
    # The id of the first event.
    Column("place", BigInteger, nullable=False, server_default=str(NOWHERE)),
    # The chain value of the only event with the highest seq.
    Column("tail", String(HEX_LENGTH)),
    Column("has_links", Boolean, nullable=False, server_default=false()),
    Column("breaks_at", BigInteger),
    # Numbers that several events have, as JSON, or null.
    Column("reused", Text),
    Column("checked_at_ms", BigInteger),
    # What was deleted here; see `accounts.prune`.
    Column("pruned_through", BigInteger, nullable=False, server_default="0"),
    Column("pruned_before_ms", BigInteger, nullable=False, server_default="0"),
    Index("ix_heads_place", "client_id", "place", "outbox_id"),
)
"""One row per outbox, written with every batch, even if it contains nothing new.

PostgreSQL's commit waits for a standby only if the transaction wrote something: without this row,
the receipt for a batch of duplicates would not guarantee that they are replicated. An additional
row with empty ids is used for trial writes.
"""

gaps = Table(
    "gaps",
    metadata,
    Column("client_id", String(MAX_ID_LENGTH), primary_key=True),
    Column("outbox_id", String(UUID_LENGTH), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
)
"""Numbers of an outbox below its highest that no event has, and none had that was deleted here."""

rejections = Table(
    "rejections",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("outbox_id", String(UUID_LENGTH), nullable=False),
    # 0 and empty if the event had no valid one.
    Column("seq", BigInteger, nullable=False),
    Column("event_id", String(MAX_ID_LENGTH), nullable=False),
    Column("code", String(MAX_ID_LENGTH), nullable=False),
    Column("message", Text, nullable=False),
    Column("rejected_at_ms", BigInteger, nullable=False),
    UniqueConstraint("client_id", "outbox_id", "seq", "event_id", name="uq_rejections_event"),
    sqlite_autoincrement=True,
)
"""Refused events, without their content: a client discards them, so they are not lost.

One that is accepted later is in ``events`` and no longer counts as refused.
"""

erased_events = Table(
    "erased_events",
    metadata,
    Column("client_id", String(MAX_ID_LENGTH), primary_key=True),
    Column("event_id", String(UUID_LENGTH), primary_key=True),
)
"""Events that an erasure named before they arrived; on arrival they are stored as erased."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("outbox_id", String(UUID_LENGTH), nullable=False),
    # The number of the event that says it.
    Column("seq", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", String(HEX_LENGTH), nullable=False),
    Column("state", String(MAX_ID_LENGTH), nullable=False),
    # With the cosignature, if the state is `cosigned`; otherwise as it was sent.
    Column("note", Text, nullable=False),
    # Ranges of numbers whose digest the device no longer has, as JSON, or null.
    Column("unknown", Text),
    Column("received_at_ms", BigInteger, nullable=False),
    # A reply of RFC 3161 over the cosigned note, and when it was received.
    Column("timestamp", LargeBinary),
    Column("stamped_at_ms", BigInteger),
    Index("ix_checkpoints_outbox", "outbox_id", "state", "size"),
    Index("ix_checkpoints_client", "client_id", "outbox_id", "id"),
    sqlite_autoincrement=True,
)
"""The heads of outboxes' trees that devices sent, cosigned or not; see `cosigning.State`."""

outbox_keys = Table(
    "outbox_keys",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("outbox_id", String(UUID_LENGTH), nullable=False),
    Column("key", Text, nullable=False),
    Column("reason", String(MAX_ID_LENGTH), nullable=False),
    Column("bound_at_ms", BigInteger, nullable=False),
    Index("ix_outbox_keys_outbox", "outbox_id", "id"),
    sqlite_autoincrement=True,
)
"""The keys by which devices sign heads; the newest of an outbox counts, the others are kept."""

forward_targets = Table(
    "forward_targets",
    metadata,
    Column("name", String(MAX_ID_LENGTH), primary_key=True),
    # The client whose events are forwarded; empty for those of all clients.
    Column("client_id", String(MAX_ID_LENGTH), primary_key=True),
    Column("endpoint", Text, nullable=False),
    # The `id` of the last event that is dealt with.
    Column("position", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # When the position was last moved, and what has kept it since; both null at first.
    Column("moved_at_ms", BigInteger),
    Column("problem", Text),
)
"""How far the events were forwarded to each target."""

set_aside = Table(
    "set_aside",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    # The target, by the key of `forward_targets`, and the `id` of the event.
    Column("name", String(MAX_ID_LENGTH), nullable=False),
    Column("of_client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("client_id", String(MAX_ID_LENGTH), nullable=False),
    Column("event_id", String(UUID_LENGTH), nullable=False),
    Column("type", String(MAX_ID_LENGTH), nullable=False),
    Column("code", String(MAX_ID_LENGTH), nullable=False),
    Column("set_aside_at_ms", BigInteger, nullable=False),
    Index("ix_set_aside_target", "name", "of_client_id", "position"),
    sqlite_autoincrement=True,
)
"""Events that a target refuses, without what it says of them, which may repeat their content."""


ui_sessions = Table(
    "ui_sessions",
    metadata,
    # SHA-256 of what the cookie holds: who reads the database cannot sign in with it.
    Column("id_hash", String(HEX_LENGTH), primary_key=True),
    Column("key_id", BigInteger, nullable=False),
    Column("csrf", String(HEX_LENGTH), nullable=False),
    Column("ends_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger, nullable=False),
)
"""Who is signed in at the pages below ``/ui/``; see `ui.sessions`."""


def events_of(client_id: str) -> FromClause:
    """Return one client's events for the queries shared with trackers.

    They are assumed to be logged in the order of receipt: an outbox uploads in the order of `seq`,
    except for dead letters that are retried.
    """
    columns = [events.c.id.label("position") if name == "position" else events.c[name]
               for name in (*COLUMNS, "trace_id")]  # fmt: skip
    return select(*columns).where(events.c.client_id == client_id).subquery("events_of_client")
