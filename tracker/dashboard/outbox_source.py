"""`OutboxSource`: what the pages read of an outbox, without writing anything to it or beside it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import literal_column
from sqlalchemy.exc import SQLAlchemyError

from tracker.clock import monotonic, sleep
from tracker.errors import OutboxDamagedError, OutboxError
from tracker.outbox import (
    StoredEvent,
    browse,
    create,
    empty_outbox,
    errors,
    file_lock,
    identity,
    paths,
    read_only,
)
from tracker.outbox import status as outbox_status
from tracker.pages.source import Delivery, Entry, Lead, Proof, UnreadableError
from tracker.pages.words import size
from tracker.queries.reads import Reads
from tracker.queries.source import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection

    from tracker.outbox import OutboxStatus
    from tracker.pages.view import View

T = TypeVar("T")

STATES = (browse.PENDING, browse.DELIVERED, browse.DEAD, browse.SKIPPED)
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.02
_CHECK_SECONDS = 60.0
_PROBE_SECONDS = 10.0
"""A probe of the upload lock takes it for a moment, so it is not done with each request."""


class OutboxSource:
    """An outbox.

    Args:
        path: The file, which need not exist yet.
        key: Its name in addresses.
        client_id: Its client, until the file says it.
    """

    states: Sequence[str] = STATES
    events = EVENTS
    reads = Reads(EVENTS)

    def __init__(self, path: Path, key: str, client_id: str | None = None) -> None:
        self.path = path
        self.key = key
        self.name = client_id or path.name
        self.place = str(path)
        self.outbox_id: str | None = None
        self._probed_at = -_PROBE_SECONDS
        self._sound: list[tuple[int, int] | None] = []
        self._checked_at = -_CHECK_SECONDS
        self._uploads = False

    def read(self, query: Callable[[Connection], T]) -> T:
        """Call `query` with a connection, and return its result; see `Source`.

        Raises:
            UnreadableError: if the file cannot be read, or is no longer the one that it was.
        """
        if not self._is_there():
            with empty_outbox(self.name) as connection:
                return query(connection)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._read(query)
            except UnreadableError as error:
                if not isinstance(error.__cause__, (read_only.ChangedError, SQLAlchemyError)):
                    raise
                sleep(_PAUSE_SECONDS)  # a process has just begun to use it, or ended
        return self._read(query)

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            with read_only.connected(self.path, self._check_file) as connection:
                self._check(connection)
                return query(connection)
        except OutboxError as error:
            raise UnreadableError(str(error), self._remedy(error)) from error
        except (SQLAlchemyError, OSError) as error:
            explained = errors.explain(self.path, error)
            raise UnreadableError(str(explained), self._remedy(explained)) from error

    def _check_file(self, path: Path) -> None:
        """Check header and log, but the log of a file in use, which takes long, only now and then.

        A process that uses it has checked it too.
        """
        marks, now = read_only.marks(path), monotonic()
        in_use = paths.index(path).exists() and now - self._checked_at < _CHECK_SECONDS
        if path.stat().st_size and (marks == self._sound or in_use):
            create.recognise(path)
            return
        read_only.check(path)
        self._sound, self._checked_at = marks, now

    def _is_there(self) -> bool:
        """Return False for a file that is not there yet; one that was there and is gone is.

        So is one that is gone but for its log, which may hold the newest events.
        """
        files = (self.path, paths.log(self.path))
        return self.outbox_id is not None or any(map(_has_bytes, files))

    def _check(self, connection: Connection) -> None:
        """Check that the file is an outbox as this version makes it, and still the same one."""
        if self.outbox_id is not None and not self.path.stat().st_size:
            raise UnreadableError(
                f"The outbox {self.path} was emptied: the file has no bytes left.",
                self.command("doctor"),
            )
        if not create.is_current(connection):
            raise UnreadableError(
                f"The outbox {self.path} is from an older version.", self.command("migrate")
            )
        owner = identity.read(connection)
        if self.outbox_id not in (None, owner.outbox_id):
            raise UnreadableError(
                f"Another outbox is at {self.path} now, of client {owner.client_id}. "
                "Start the dashboard again to see it."
            )
        self.outbox_id, self.name = owner.outbox_id, owner.client_id

    def _remedy(self, error: OutboxError) -> str:
        return self.command("doctor") if isinstance(error, OutboxDamagedError) else ""

    def command(self, arguments: str) -> str:
        """Return a command line for this outbox."""
        return f"tracker-sync --outbox {shlex.quote(str(self.path))} {arguments}"

    def uploader_runs(self) -> bool:
        """Return True if a process uploaded from this outbox within the last ten seconds."""
        if monotonic() - self._probed_at >= _PROBE_SECONDS:
            self._probed_at = monotonic()
            try:
                self._uploads = file_lock.is_held(paths.upload_lock(self.path))
            except (PermissionError, OutboxError):
                self._uploads = False
        return self._uploads

    def stamp(self, connection: Connection) -> str:
        """Return a text that differs when anything does that a page shows."""
        return f"{outbox_status.stamp(connection)} {self.outbox_id} {self.uploader_runs()}"

    def status(self, connection: Connection) -> OutboxStatus:
        """Return the account and the state of uploading."""
        return outbox_status.read(connection)

    def lead(self, connection: Connection) -> Lead:
        """Return the account."""
        from tracker.dashboard.standing import standing

        found = standing(self.status(connection), self.command, runs=self.uploader_runs())
        if not self._is_there():
            found["why"] = [f"The outbox will be at {self.path}."]
        return Lead("account.html", found)

    def menu(self, connection: Connection) -> Sequence[Entry]:
        """Return the pages of an outbox."""
        book = self.status(connection).account
        return (
            Entry("", "Overview"),
            Entry("conversations", "Conversations"),
            Entry("search", "Search"),
            Entry("delivery", "Delivery", book.pending + book.dead or None, book.dead > 0),
            Entry("usage", "Usage"),
            Entry("agents", "Agents"),
            Entry("scores", "Scores"),
            Entry("events", "Events", book.accepted),
            Entry("health", "Health"),
        )

    def deliveries(self, connection: Connection, session_id: str) -> dict[int, Delivery]:
        """Return where the events of a conversation are, by seq."""
        found = browse.deliveries(connection, session_id)
        return {seq: Delivery(*each[:3]) for seq, each in found.items()}

    def in_state(self, state: str) -> ColumnElement[bool]:
        """Return the condition for events in one of `STATES`."""
        return literal_column(browse.Condition().in_state(state).sql)

    def proof(self, connection: Connection, event_id: str) -> Proof:
        """Return digest and chain value of an event, and whether it is intact."""
        found = browse.find(connection, event_id)
        return Proof() if found is None else _proof(found)


def _has_bytes(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it will say what is wrong


def outbox_of(view: View) -> OutboxSource:
    """Return the outbox that a page is about.

    Raises:
        TypeError: if it is about something else, which no route of the dashboard does.
    """
    if not isinstance(view.source, OutboxSource):
        raise TypeError("this page is about an outbox")
    return view.source


def _proof(event: StoredEvent) -> Proof:
    facts = [("digest", event.digest), ("chain", event.chain), ("size", size(len(event.data)))]
    return Proof(
        facts,
        event.erased or event.intact,
        Delivery(event.state, event.dead_code, event.dead_message),
    )
