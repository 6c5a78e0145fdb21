"""API keys: created here, shown once, stored as hashes."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from tracker.collector.dates import date_text
from tracker.collector.key_changes import change_now, record
from tracker.collector.key_tables import key_uses
from tracker.collector.scopes import Scope, check_scopes, stored_scopes
from tracker.collector.tables import MAX_ID_LENGTH, api_keys
from tracker.sealed.seal import Seal, hash_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from tracker.collector.store import Store

_PREFIX = "trk_"
_FIND_SECONDS = 5.0
_PAGE = 1_000
_FOREVER = 2**63 - 1
_HASHES = 500
"""Number of hashes in one condition."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Description of a key, without the key itself.

    Attributes:
        id: Its number, for ``tracker-collector keys revoke``.
        client_id: The client that it belongs to; None for an operator's key, which reads the
            events of all clients and sends none.
        label: A label for people, or None.
        created_at_ms: Time of creation, Unix milliseconds.
        revoked_at_ms: Time of revocation, Unix milliseconds, or None.
        expires_at_ms: Time from which on it is refused, Unix milliseconds, or None.
        scopes: What it is allowed to do.
    """

    id: int
    client_id: str | None
    label: str | None
    created_at_ms: int
    revoked_at_ms: int | None
    expires_at_ms: int | None
    scopes: tuple[Scope, ...]

    @property
    def operator(self) -> bool:
        """Whether it is an operator's key."""
        return self.client_id is None

    @property
    def may_read(self) -> bool:
        """Whether it reads events: those of its client or, if it is an operator's, of all."""
        return "read" in self.scopes or "operate" in self.scopes

    def has_expired(self, now_ms: int | None = None) -> bool:
        """Return True if it is refused because of its age, now or at another time."""
        now = _now_ms() if now_ms is None else now_ms
        return self.expires_at_ms is not None and self.expires_at_ms <= now

    def is_valid(self) -> bool:
        """Return True if it has neither expired nor been revoked."""
        return self.revoked_at_ms is None and not self.has_expired()


@dataclass(frozen=True)
class Terms:
    """What keys are made for.

    Attributes:
        label: A label for people, or None.
        expires_at_ms: Time from which on they are refused, Unix milliseconds, or None.
        scopes: What they are allowed to do; all that their kind can be if there are none.
    """

    label: str | None = None
    expires_at_ms: int | None = None
    scopes: Sequence[str] = ()


class Keys:
    """The API keys in a store. Any thread may call any method; the store owns the connections.

    Every method raises `StorageError` if the database fails. Every change is recorded in the same
    transaction, as made by the user of this process.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self, client_id: str | None, label: str | None = None, terms: Terms | None = None
    ) -> tuple[str, ApiKey]:
        """Create a key; return it, which is not possible later, and its description.

        Args:
            client_id: Its client; None creates an operator's key.
            label: A label for people, unless there are `terms`.
            terms: What it is made for.

        Raises:
            ValueError: if `client_id`, the label or the scopes are not valid.
        """
        key = new_key()
        row = _row(client_id, key, terms or Terms(label))
        with self._store.writing("keys") as connection:
            made = _insert(connection, row)
            record(connection, [change_now("created", made.id, client_id, _detail(made))])
        return key, made

    def add(self, keys: Mapping[str, str], terms: Terms) -> dict[str, int]:
        """Store keys that `new_key` has made for clients, unless they are stored; return their ids.

        It stores all of them or none, and can be repeated.

        Args:
            keys: The key of each client.
            terms: What they are made for.

        Raises:
            ValueError: if a client id, the label or the scopes are not valid.
        """
        rows = {hash_key(key): _row(client_id, key, terms) for client_id, key in keys.items()}
        with self._store.writing("keys") as connection:
            stored = {row["key_hash"] for row in _with_hashes(connection, list(rows))}
            new = [row for hashed, row in rows.items() if hashed not in stored]
            if new:
                connection.execute(insert(api_keys), new)
            found = [described(row) for row in _with_hashes(connection, list(rows))]
            found.sort(key=lambda each: each.id)
            made = {row["client_id"] for row in new}
            changes = [
                change_now("created", each.id, each.client_id, _detail(each))
                for each in found
                if each.client_id in made
            ]
            record(connection, changes)
        return {str(each.client_id): each.id for each in found}

    def find(self, key: str) -> ApiKey | None:
        """Return the description of `key`, or None if it is unknown or revoked.

        It may have expired, and may not have the scope that is needed: the caller checks both.
        """
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
        """Return the keys of a client, including those that are not valid, and their seals."""
        query = select(api_keys).where(
            api_keys.c.client_id == client_id, api_keys.c.operator.is_(False)
        )
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(api_keys.c.id)).mappings()
            return [(described(row), Seal(bytes.fromhex(row["key_hash"]))) for row in rows]

    def each(self, client_id: str | None = None) -> Iterator[tuple[ApiKey, int | None]]:
        """Yield the keys of a client, or of all and of operators, in order of creation.

        Beside each is when it was last used, Unix milliseconds, to some minutes; or None. It reads
        in pages, so that a fleet's keys are never in memory all at once.
        """
        query = select(api_keys, key_uses.c.last_used_at_ms).order_by(api_keys.c.id).limit(_PAGE)
        query = query.outerjoin(key_uses, key_uses.c.key_id == api_keys.c.id)
        if client_id is not None:
            query = query.where(api_keys.c.client_id == client_id, api_keys.c.operator.is_(False))
        after = 0
        while True:
            with self._store.reading() as connection:
                rows = connection.execute(query.where(api_keys.c.id > after)).mappings().all()
            for row in rows:
                after = row["id"]
                yield described(row), row["last_used_at_ms"]
            if len(rows) < _PAGE:
                return

    def revoke(self, key_id: int) -> bool:
        """Revoke a key from the next request on; return False if there is no such valid key."""
        return self.revoke_all([key_id]) == [key_id]

    def revoke_all(self, key_ids: Collection[int]) -> list[int]:
        """Revoke those of some keys that are not revoked yet, from the next request on.

        Returns:
            Their ids, in order.
        """
        revoked = []
        with self._store.writing("keys") as connection:
            for key_id in sorted(set(key_ids)):
                if (key := _stored(connection, key_id)) is not None:
                    values = {"revoked_at_ms": _now_ms()}
                    _change(connection, key_id, values)
                    revoked.append(change_now("revoked", key_id, key.client_id, None))
            record(connection, revoked)
        return [each.key_id for each in revoked]

    def rotate(
        self, key_id: int, overlap_ms: int, expires_at_ms: int | None = None
    ) -> tuple[str, ApiKey, int]:
        """Create a key like another one, which then expires after an overlap.

        Args:
            key_id: The former key.
            overlap_ms: How long the former one stays valid, at most, in milliseconds.
            expires_at_ms: Time from which on the new one is refused, Unix milliseconds, or None.

        Returns:
            The new key, its description, and when the former one expires.

        Raises:
            ValueError: if there is no such valid key, or it expires and nothing is said of the new
                one.
        """
        key = new_key()
        with self._store.writing("keys") as connection:
            former = _stored(connection, key_id)
            if former is None or former.has_expired():
                raise ValueError(f"there is no valid key with the id {key_id}")
            if former.expires_at_ms is not None and expires_at_ms is None:
                raise ValueError(
                    f"key {key_id} expires, so say when the new one does: --days or --expires"
                )
            ends = min(_now_ms() + overlap_ms, former.expires_at_ms or _FOREVER)
            _change(connection, key_id, {"expires_at_ms": ends})
            terms = Terms(former.label, expires_at_ms, former.scopes)
            made = _insert(connection, _row(former.client_id, key, terms))
            text = f"replaced by key {made.id}, expires {date_text(ends)}"
            record(connection, [
                change_now("created", made.id, made.client_id, _detail(made)),
                change_now("rotated", key_id, former.client_id, text),
            ])  # fmt: skip
        return key, made, ends

    def list(self) -> list[ApiKey]:
        """Return the descriptions of all keys, including revoked ones, in order of creation."""
        return [key for key, _ in self.each()]


def new_key() -> str:
    """Return a new key, which is stored nowhere yet."""
    return _PREFIX + secrets.token_urlsafe(32)


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
    operator = bool(row["operator"])
    return ApiKey(
        row["id"],
        None if operator else row["client_id"],
        row["label"],
        row["created_at_ms"],
        row["revoked_at_ms"],
        row["expires_at_ms"],
        stored_scopes(row["scopes"], operator=operator),
    )


def _row(client_id: str | None, key: str, terms: Terms) -> dict[str, Any]:
    """Return the row of a new key."""
    if client_id is not None:
        check_client_id(client_id)
    label = terms.label
    if label is not None and (len(label) > MAX_ID_LENGTH or not label.isprintable()):
        raise ValueError(f"the label is not one line of at most {MAX_ID_LENGTH} characters")
    operator = client_id is None
    return {
        "client_id": client_id or "",
        "operator": operator,
        "key_hash": hash_key(key),
        "created_at_ms": _now_ms(),
        "label": label,
        "expires_at_ms": terms.expires_at_ms,
        "scopes": " ".join(check_scopes(terms.scopes, operator=operator)),
    }


def _insert(connection: Connection, row: dict[str, Any]) -> ApiKey:
    connection.execute(insert(api_keys), row)
    (found,) = _with_hashes(connection, [row["key_hash"]])
    return described(found)


def _with_hashes(connection: Connection, hashes: Sequence[str]) -> list[RowMapping]:
    found: list[RowMapping] = []
    for start in range(0, len(hashes), _HASHES):
        part = api_keys.c.key_hash.in_(hashes[start : start + _HASHES])
        found += connection.execute(select(api_keys).where(part)).mappings()
    return found


def _stored(connection: Connection, key_id: int) -> ApiKey | None:
    """Return a key that is not revoked."""
    query = select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at_ms.is_(None))
    row = connection.execute(query).mappings().first()
    return None if row is None else described(row)


def _change(connection: Connection, key_id: int, values: dict[str, int]) -> None:
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(values))


def _detail(key: ApiKey) -> str:
    """Return what the record of its creation says of a key."""
    expires = "" if key.expires_at_ms is None else f"; expires {date_text(key.expires_at_ms)}"
    return f"may {', '.join(key.scopes)}{expires}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
