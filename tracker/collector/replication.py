"""`Replication`: what PostgreSQL has to guarantee before a receipt is given."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tracker import clock
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

Durability = Literal["local", "replicated"]
"""What a receipt guarantees: stored on this server's disk, or on a synchronous standby too."""

LOCK_SECONDS = 5
"""How long a statement waits for a lock."""
SHORT_LOCK_MS = 200
"""The same where others wait with it."""
STATEMENT_SECONDS = 20
"""How long a statement of a write may take."""
_CHECK_SECONDS = 5.0

# One statement, hence one round trip, at the beginning of a write. `on` is the weakest setting that
# waits for the disk and for the standbys; a server's `remote_apply`, which is stronger, is kept.
# What comes later in it is worked out later, and what reads a table is a later statement, so that
# it sees what the writers before have committed.
_BEGIN = f"""
SELECT set_config('synchronous_commit',
           CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply'
           ELSE 'on' END, true),
       set_config('lock_timeout', '{{lock_ms}}ms', true),
       set_config('statement_timeout', '{STATEMENT_SECONDS}s', true),
       {{locks}},
       current_setting('synchronous_standby_names'),
       current_setting('fsync'),
       current_setting('full_page_writes'),
       pg_is_in_recovery()
"""
_ALONE = _BEGIN.format(locks="pg_advisory_xact_lock(%s)", lock_ms=LOCK_SECONDS * 1000)
_WITHIN = _BEGIN.format(
    locks="pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(%s)", lock_ms=LOCK_SECONDS * 1000
)
# What would have to wait is left out: so one does not hold up the others, and whatever the order
# of the locks, no two transactions wait for one another.
_SOME = _BEGIN.format(
    locks="""ARRAY(
           SELECT CASE WHEN pg_try_advisory_xact_lock_shared(whole)
                       THEN pg_try_advisory_xact_lock(part) ELSE false END
           FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS wanted (whole, part, place)
           ORDER BY place)""",
    lock_ms=SHORT_LOCK_MS,
)
_NAMES = "SELECT current_setting('synchronous_standby_names')"
# The view shows all columns only to the roles pg_monitor and pg_read_all_stats: for others, `state`
# and `sync_state` are null and cannot be counted.
_STANDBYS = """
SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),
       count(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication
"""


class NotReplicatedError(TrackerError):
    """The database is not replicated as required, or did not confirm it for a commit."""


class Configured(NamedTuple):
    """The relevant settings of a server."""

    standby_names: str
    fsync: str
    full_page_writes: str
    in_recovery: bool


class Replication:
    """Checks that commits are replicated as required. Thread-safe.

    Args:
        durability: What is required. None means what the server is configured for when it is first
            used: ``replicated`` if ``synchronous_standby_names`` is set, otherwise ``local``.
    """

    def __init__(self, durability: Durability | None = None) -> None:
        self._durability = durability
        self._checked_at: float | None = None
        self._lock = threading.Lock()

    @property
    def durability(self) -> Durability:
        """The required durability."""
        return self._durability or "local"

    def begin(self, connection: Connection, scope: str, within: str | None = None) -> None:
        """Begin a write: take the scope's lock, and check the server's settings.

        Args:
            connection: The transaction.
            scope: What nobody else may write meanwhile.
            within: What nobody may write as a whole meanwhile, but for its other parts.

        Raises:
            NotReplicatedError: if the database is not replicated as required.
        """
        if within is None:
            begun = connection.exec_driver_sql(_ALONE, (lock_number(scope),))
        else:
            locks = (lock_number(within), lock_number(scope))
            begun = connection.exec_driver_sql(_WITHIN, locks)
        self._check(_configured(begun.one()))
        if self._durability == "replicated":
            self._check_standbys(connection)

    def begin_some(self, connection: Connection, scopes: Sequence[tuple[str, str]]) -> list[bool]:
        """Begin a write in several scopes: take the locks of those that nobody has, and check.

        Args:
            connection: The transaction.
            scopes: For each what `begin` calls `within`, and its scope; none twice.

        Returns:
            For each whether its locks were taken.

        Raises:
            NotReplicatedError: as for `begin`.
        """
        numbers = ([lock_number(scope) for scope in column] for column in zip(*scopes, strict=True))
        row = connection.exec_driver_sql(_SOME, tuple(numbers)).one()
        self._check(_configured(row))
        if self._durability == "replicated":
            self._check_standbys(connection)
        taken: list[bool] = row[-len(Configured._fields) - 1]
        return taken

    def lock(self, connection: Connection, scope: str) -> None:
        """Take the lock of another scope, until the end of the transaction."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (lock_number(scope),))

    def settle(self, connection: Connection) -> str | None:
        """Determine the required durability; return a warning for the operator, or None.

        Raises:
            ConfigurationError: if the server is not configured for it; the message says what to
                set.
        """
        begun = connection.exec_driver_sql(_ALONE, (lock_number("durability"),))
        found = _configured(begun.one())
        if self._durability is None:
            self._durability = "replicated" if found.standby_names.strip() else "local"
        try:
            self._check(found)
        except NotReplicatedError as error:
            raise ConfigurationError(str(error)) from error
        if self._durability == "replicated":
            return None
        if found.fsync != "on" or found.full_page_writes != "on":
            return "the database's fsync or full_page_writes is off: a power cut can lose events"
        if found.standby_names.strip():
            return None
        return (
            "the database has no synchronous standby (synchronous_standby_names is empty): a"
            " receipt means that an event is on this one server's disk"
        )

    def confirm(self, connection: Connection) -> None:
        """Check again after a commit, since the setting may have changed before it.

        Raises:
            NotReplicatedError: if it has changed.
        """
        if self._durability == "replicated" and not connection.exec_driver_sql(_NAMES).scalar():
            raise NotReplicatedError("synchronous_standby_names became empty meanwhile")

    def _check(self, found: Configured) -> None:
        if found.in_recovery:
            raise NotReplicatedError(
                "the database is a standby, which accepts no writes: connect to the primary, as in"
                " target_session_attrs=read-write in the URL"
            )
        if self._durability != "replicated":
            return
        if not found.standby_names.strip():
            raise NotReplicatedError(
                "synchronous_standby_names of the database is empty, so a commit waits for no"
                " standby: set it, as with 'ANY 1 (*)', or serve with --durability local"
            )
        if found.fsync != "on" or found.full_page_writes != "on":
            raise NotReplicatedError(
                "fsync or full_page_writes of the database is off: set both to on, or serve with"
                " --durability local"
            )

    def _check_standbys(self, connection: Connection) -> None:
        """Fail early if no synchronous standby is connected: a commit would only wait."""
        with self._lock:
            now = clock.monotonic()
            if self._checked_at is not None and now - self._checked_at < _CHECK_SECONDS:
                return
            synchronous, hidden = connection.exec_driver_sql(_STANDBYS).one()
            if not synchronous and not hidden:
                self._checked_at = None
                raise NotReplicatedError("no synchronous standby is connected to the database")
            self._checked_at = now


def _configured(row: Row[Any]) -> Configured:
    return Configured(*row[-len(Configured._fields) :])


def lock_number(scope: str) -> int:
    """Return the 64-bit number of a scope's lock in PostgreSQL."""
    digest = hashlib.sha256(b"tracker-collector:" + scope.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
