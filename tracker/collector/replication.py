"""What PostgreSQL has to promise before a receipt is given: `Replication`."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

from tracker import clock
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from sqlalchemy import Connection

Durability = Literal["local", "replicated"]
"""What a receipt promises: on this server's disk, or on a synchronous standby's too."""

LOCK_SECONDS = 5
"""How long a statement waits for a lock."""
STATEMENT_SECONDS = 20
"""How long a statement of a write may take."""
_LOOK_SECONDS = 5.0

# One statement, hence one round trip, for all that a write begins with. `on` is the least that
# waits for the disk and for the standbys; a server's own `remote_apply` asks for more and stays.
_BEGIN = f"""
SELECT set_config('synchronous_commit',
           CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply'
           ELSE 'on' END, true),
       set_config('lock_timeout', '{LOCK_SECONDS}s', true),
       set_config('statement_timeout', '{STATEMENT_SECONDS}s', true),
       pg_advisory_xact_lock(%s),
       current_setting('synchronous_standby_names'),
       current_setting('fsync'),
       current_setting('full_page_writes'),
       pg_is_in_recovery()
"""
_NAMES = "SELECT current_setting('synchronous_standby_names')"
# The view shows everything to the roles pg_monitor and pg_read_all_stats only: to others, `state`
# and `sync_state` are null, and there is nothing to count.
_STANDBYS = """
SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),
       count(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication
"""


class NotReplicatedError(TrackerError):
    """The database is not replicated as it has to be, or did not say that a commit was."""


class Configured(NamedTuple):
    """What a server says of itself."""

    standby_names: str
    fsync: str
    full_page_writes: str
    in_recovery: bool


class Replication:
    """Sees that what is committed is where it has to be. Any thread may call any method.

    Args:
        durability: What has to hold. None takes what the server is set up for when it is first
            asked: ``replicated`` where ``synchronous_standby_names`` is set, otherwise ``local``.
    """

    def __init__(self, durability: Durability | None = None) -> None:
        self._durability = durability
        self._looked_at: float | None = None
        self._lock = threading.Lock()

    @property
    def durability(self) -> Durability:
        """What has to hold."""
        return self._durability or "local"

    def begin(self, connection: Connection, scope: str) -> None:
        """Begin a write: take the scope's lock, and look at what the server is set up for.

        Raises:
            NotReplicatedError: it is not replicated as it has to be.
        """
        row = connection.exec_driver_sql(_BEGIN, (_lock_number(scope),)).one()
        self._check(Configured(*row[4:]))
        if self._durability == "replicated":
            self._look_at_standbys(connection)

    def settle(self, connection: Connection) -> str | None:
        """Decide at the start what has to hold; return a warning for the operator, or None.

        Raises:
            ConfigurationError: the server is not set up for it; the text says what to set.
        """
        row = connection.exec_driver_sql(_BEGIN, (_lock_number("durability"),)).one()
        found = Configured(*row[4:])
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
        """Look once more after a commit: the setting may have changed before it.

        Raises:
            NotReplicatedError: it has.
        """
        if self._durability == "replicated" and not connection.exec_driver_sql(_NAMES).scalar():
            raise NotReplicatedError("synchronous_standby_names has been emptied meanwhile")

    def _check(self, found: Configured) -> None:
        if found.in_recovery:
            raise NotReplicatedError(
                "the database is a standby, which takes no writes: connect to the primary, as with"
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

    def _look_at_standbys(self, connection: Connection) -> None:
        """Refuse early while no synchronous standby is there: a commit would only wait."""
        with self._lock:
            now = clock.monotonic()
            if self._looked_at is not None and now - self._looked_at < _LOOK_SECONDS:
                return
            synchronous, hidden = connection.exec_driver_sql(_STANDBYS).one()
            if not synchronous and not hidden:
                self._looked_at = None
                raise NotReplicatedError("no synchronous standby is connected to the database")
            self._looked_at = now


def _lock_number(scope: str) -> int:
    """Return the 64-bit number that PostgreSQL knows a scope's lock by."""
    digest = hashlib.sha256(b"tracker-collector:" + scope.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
