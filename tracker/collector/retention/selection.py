"""`Selection`: which events are to be deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tracker.erasure import ERASED

if TYPE_CHECKING:
    from sqlalchemy import Connection

_KEPT = (
    "(substr(type, 1, 11) = 'compliance.' OR type = 'events.discarded'"
    " OR (substr(type, 1, 10) = 'integrity.' AND type <> 'integrity.checkpoint'))"
)
"""Events that say why others are not there, or who may sign for them. Checkpoints are kept in a
table of their own."""
IS_ERASED = "rtrim(data) = '{}'".format(ERASED.replace(":", "\\:"))
"""A condition of SQL, in a text for SQLAlchemy, where a colon begins a parameter."""
_WILDCARD = ".*"


def is_kept(type: str) -> bool:
    """Return whether events of a type, or of some type that begins so, are never deleted by age."""
    beginning = type.removesuffix("*")
    kept = ("compliance.", "integrity.key_changed", "events.discarded")
    return beginning.startswith("compliance.") or type in kept[1:]


@dataclass(frozen=True)
class Selection:
    """Events to delete.

    Attributes:
        before_ms: Those that were received before this time, Unix milliseconds.
        through_id: Those up to this id, below which no other can appear any more.
        client_id: Those of this client; None: of all.
        type: Those of this type, or of all that begin as in ``llm.*``; None: of all types.
    """

    before_ms: int
    through_id: int
    client_id: str | None = None
    type: str | None = None

    @property
    def has_filter(self) -> bool:
        """Whether it is about some clients or types only."""
        return self.client_id is not None or self.type is not None

    @property
    def condition(self) -> str:
        """The condition in SQL, with the parameters of `values`."""
        parts = ["received_at_ms < :before_ms", "id <= :through_id", "id > 0", f"NOT {_KEPT}"]
        if self.client_id is not None:
            parts.append("client_id = :client_id")
        if self.type is not None:
            length = len(self._beginning)
            has_wildcard = self.type.endswith(_WILDCARD)
            parts.append(f"substr(type, 1, {length}) = :type" if has_wildcard else "type = :type")
        return " AND ".join(parts)

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of `condition`."""
        found: dict[str, Any] = {"before_ms": self.before_ms, "through_id": self.through_id}
        if self.client_id is not None:
            found["client_id"] = self.client_id
        if self.type is not None:
            found["type"] = self._beginning
        return found

    def count(self, connection: Connection) -> int:
        """Return how many events these are."""
        query = text(f"SELECT count(*) FROM events WHERE {self.condition}")  # noqa: S608 - our own words
        return int(connection.execute(query, self.values).scalar_one())

    def last_ids(self, connection: Connection) -> dict[str, int]:
        """Return each client that has any of these events, and the id of its last one.

        A clock that was wrong for a while dates events that came later before others.
        """
        query = text(
            f"SELECT client_id, max(id) FROM events WHERE {self.condition}"  # noqa: S608 - our own words
            " GROUP BY client_id ORDER BY client_id"
        )
        return dict(map(tuple, connection.execute(query, self.values)))

    @property
    def _beginning(self) -> str:
        assert self.type is not None  # noqa: S101 - asked only if there is one
        return self.type.removesuffix("*") if self.type.endswith(_WILDCARD) else self.type
