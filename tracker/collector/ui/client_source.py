"""`ClientSource` and `EveryClient`: what the pages read of a collector's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import exists, false, or_, select

from tracker.collector import stamps
from tracker.collector.batch import ReceivedEvent, has_its_digest
from tracker.collector.rollups.reads import reads_of
from tracker.collector.tables import api_keys, events, events_of, heads
from tracker.collector.ui.sentences import COUNTING, sentence_of
from tracker.erasure import ERASED
from tracker.pages.source import Delivery, Entry, Lead, Proof
from tracker.pages.words import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from tracker.collector.store import Store
    from tracker.collector.ui.completeness import Completeness
    from tracker.pages.view import View
    from tracker.queries.reads import Reads

T = TypeVar("T")

MOST_HOLES = 12
"""How many holes of an outbox are told in words."""
_MOST_SHOWN = 50
_MOST_CHECKED = 50
_PLACE = "received by the collector"


class EveryClient:
    """All clients together: the pages that are about no single one.

    Args:
        store: The database.
        completeness: What is known of the outboxes.
    """

    key = ""
    name = "All clients"
    place = _PLACE
    states: Sequence[str] = ()
    client_id: str | None = None

    def __init__(self, store: Store, completeness: Completeness) -> None:
        self._store = store
        self.completeness = completeness
        self.events = events_of("")  # no client has this id
        self.reads: Reads = reads_of("")

    def read(self, query: Callable[[Connection], T]) -> T:
        """Call `query` with a connection, and return its result; see `Source`.

        Raises:
            StorageError: if the database fails.
        """
        with self._store.reading() as connection:
            return query(connection)

    def stamp(self, connection: Connection) -> str:
        """Return a text that differs when anything does that a page shows."""
        return stamps.stamp(connection, self.client_id)

    def lead(self, _connection: Connection) -> Lead | None:
        """Return what is first on the overview: nothing, there is none."""
        return None

    def menu(self, _connection: Connection) -> Sequence[Entry]:
        """Return the pages of the rail: none but those of the site."""
        return ()

    def deliveries(self, _connection: Connection, _session_id: str) -> Mapping[int, Delivery]:
        """Return nothing: all that is here has arrived."""
        return {}

    def in_state(self, _state: str) -> ColumnElement[bool]:
        """Return a condition that nothing fulfils: there are no states."""
        return false()

    def proof(self, _connection: Connection, _event_id: str) -> Proof:
        """Return nothing: no event is shown."""
        return Proof()


class ClientSource(EveryClient):
    """The events of one client.

    Args:
        store: The database.
        client_id: The client.
        completeness: What is known of the outboxes.
    """

    client_id: str

    def __init__(self, store: Store, client_id: str, completeness: Completeness) -> None:
        super().__init__(store, completeness)
        self.client_id = self.key = self.name = client_id
        self.events = events_of(client_id)
        self.reads = reads_of(client_id)

    def lead(self, connection: Connection) -> Lead | None:
        """Return what is complete, and what is not."""
        counts = self.completeness.counts(self.client_id, self.stamp(connection))
        known = self.completeness.standings(counts or (), _MOST_CHECKED)
        return Lead("client_lead.html", {
            "sentence": COUNTING if counts is None else sentence_of(known),
            "standings": known[:_MOST_SHOWN],
            "most_holes": MOST_HOLES,
            "left_out": max(len(known) - _MOST_SHOWN, 0),
        })  # fmt: skip

    def menu(self, _connection: Connection) -> Sequence[Entry]:
        """Return the pages of a client."""
        return (
            Entry("", "Overview"),
            Entry("conversations", "Conversations"),
            Entry("usage", "Usage"),
            Entry("agents", "Agents"),
            Entry("scores", "Scores"),
            Entry("events", "Events"),
            Entry("rejections", "Rejections"),
            Entry("erasures", "Erasures"),
        )

    def proof(self, connection: Connection, event_id: str) -> Proof:
        """Return where an event came from, and what it is proved by."""
        column = events.c
        fields = [column[name] for name in ReceivedEvent._fields]
        query = select(*fields, column.outbox_id, column.received_at_ms).where(
            column.client_id == self.client_id, column.event_id == event_id
        )
        row = connection.execute(query).first()
        if row is None:
            return Proof()
        *values, outbox_id, received_at_ms = row
        found = ReceivedEvent(*values)
        facts = [
            ("outbox", outbox_id),
            ("received", moment(received_at_ms) or ""),
            ("digest", found.digest),
            ("chain", found.chain),
        ]
        return Proof(facts, _is_intact(found))


def _is_intact(event: ReceivedEvent) -> bool | None:
    """Return whether an event has its digest; None if an erasure left nothing to tell it by."""
    if has_its_digest(event):
        return True
    return None if event.seal is None and event.data.rstrip() == ERASED else False


def is_known(connection: Connection, client_id: str) -> bool:
    """Return True if a client has a key, or has sent something."""
    found = [exists().where(table.c.client_id == client_id) for table in (api_keys, heads, events)]
    return bool(connection.execute(select(or_(*found))).scalar())


def client_of(view: View) -> str:
    """Return the client that a page is about.

    Raises:
        TypeError: if it is about something else, which no route of a client does.
    """
    if not isinstance(view.source, ClientSource):
        raise TypeError("this page is about a client")
    return view.source.client_id
