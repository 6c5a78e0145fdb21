"""API keys: created here, shown once, stored as hashes."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from tracker.collector.tables import MAX_ID_LENGTH, api_keys
from tracker.sealed.seal import Seal, hash_of

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from tracker.collector.store import Store

_PREFIX = "trk_"
_FIND_SECONDS = 5.0


@dataclass(frozen=True)
class ApiKey:
    """Description of a key, without the key itself.

    Attributes:
        id: Its number, for ``tracker-collector keys revoke``.
        client_id: The client that it belongs to; None for an operator's key, which reads the
            events of all clients and sends none.
        label: A label for people, or None.
        created_at_ms: Time of creation, Unix milliseconds.
        revoked_at_ms: Time of revocation, Unix milliseconds, or None while it is valid.
    """

    id: int
    client_id: str | None
    label: str | None
    created_at_ms: int
    revoked_at_ms: int | None

    @property
    def operator(self) -> bool:
        """Whether it is an operator's key."""
        return self.client_id is None


class Keys:
    """The API keys in a store. Any thread may call any method; the store owns the connections.

    Every method raises `StorageError` if the database fails.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, client_id: str | None, label: str | None = None) -> tuple[str, ApiKey]:
        """Create a key; return it, which is not possible later, and its description.

        Args:
            client_id: Its client; None creates an operator's key.
            label: A label for people.

        Raises:
            ValueError: if `client_id` or `label` is not valid in the database and in HTTP.
        """
        if client_id is not None:
            check_client_id(client_id)
        if label is not None and (len(label) > MAX_ID_LENGTH or not label.isprintable()):
            raise ValueError(f"the label is not one line of at most {MAX_ID_LENGTH} characters")
        key = _PREFIX + secrets.token_urlsafe(32)
        values = {
            "client_id": client_id or "",
            "operator": client_id is None,
            "key_hash": hash_key(key),
            "created_at_ms": time.time_ns() // 1_000_000,
            "label": label,
        }
        with self._store.writing("keys") as connection:
            result = connection.execute(insert(api_keys).values(**values))
            (key_id,) = result.inserted_primary_key or (0,)
        return key, ApiKey(key_id, client_id, label, int(str(values["created_at_ms"])), None)

    def find(self, key: str) -> ApiKey | None:
        """Return the description of `key`, or None if it is unknown or revoked."""
        wanted = hash_key(key)
        query = select(api_keys).where(api_keys.c.key_hash == wanted)
        with self._store.reading(_FIND_SECONDS) as connection:
            row = connection.execute(query).mappings().first()
        # The index finds the row by a hash of 256 random bits, so the duration reveals nothing
        # about the key; the comparison is timing-safe anyway.
        if row is None or not hmac.compare_digest(row["key_hash"], wanted):
            return None
        return None if row["revoked_at_ms"] is not None else described(row)

    def seals(self, client_id: str) -> list[tuple[ApiKey, Seal]]:
        """Return the keys of a client, including revoked ones, and what each of them seals with."""
        query = select(api_keys).where(
            api_keys.c.client_id == client_id, api_keys.c.operator.is_(False)
        )
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(api_keys.c.id)).mappings()
            return [(described(row), Seal(bytes.fromhex(row["key_hash"]))) for row in rows]

    def list(self) -> list[ApiKey]:
        """Return the descriptions of all keys, including revoked ones, in order of creation."""
        with self._store.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.id)).mappings()
            return [described(row) for row in rows]

    def revoke(self, key_id: int) -> bool:
        """Revoke a key from the next request on; return False if there is no such valid key."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at_ms.is_(None))
            .values(revoked_at_ms=time.time_ns() // 1_000_000)
        )
        with self._store.writing("keys") as connection:
            return connection.execute(statement).rowcount == 1


def hash_key(key: str) -> str:
    """Return the hash of a key to store: its SHA-256 as 64 hex digits."""
    return hash_of(key).hex()


def check_client_id(client_id: str) -> None:
    """Check that a header can contain `client_id` unchanged.

    Raises:
        ValueError: if it cannot.
    """
    if not 1 <= len(client_id) <= MAX_ID_LENGTH:
        raise ValueError(f"the client id must have 1 to {MAX_ID_LENGTH} characters")
    if client_id != client_id.strip() or not client_id.isprintable():
        raise ValueError(
            "the client id must be printable, without spaces around it: it is sent in a header"
        )


def described(row: RowMapping) -> ApiKey:
    """Return the description of a row of the table of keys."""
    client_id = None if row["operator"] else row["client_id"]
    return ApiKey(row["id"], client_id, row["label"], row["created_at_ms"], row["revoked_at_ms"])
