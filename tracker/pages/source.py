"""`Source`: what pages read, an outbox on this device or one client's events at a collector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause

    from tracker.queries.reads import Reads

T = TypeVar("T")


class UnreadableError(Exception):
    """A source cannot be read now.

    Attributes:
        reason: Why, in a sentence.
        command: What to run about it, or an empty text.
    """

    def __init__(self, reason: str, command: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.command = command


@dataclass(frozen=True)
class Delivery:
    """Where an event is now.

    Attributes:
        state: ``"pending"``, ``"delivered"``, ``"dead"`` or ``"skipped"``.
        code: Why it was refused, in one word; None if it was not.
        message: Why, in the receiver's words.
    """

    state: str
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Lead:
    """What is first on an overview: a template, and its values."""

    template: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """What is known of one stored event besides its columns.

    Attributes:
        facts: Names and values, such as the digest.
        intact: Whether it still matches its digest; None if that is not known.
        delivery: Where it is; None if that is not known.
    """

    facts: Sequence[tuple[str, str]] = ()
    intact: bool | None = None
    delivery: Delivery | None = None


@dataclass(frozen=True)
class Entry:
    """A page in the rail.

    Attributes:
        name: The path of the page, below that of the site.
        label: What the rail says.
        count: How many of them there are; None if that is not shown.
        bad: Whether the count is a reason to look.
    """

    name: str
    label: str
    count: int | None = None
    bad: bool = False


class Source(Protocol):
    """What the pages read.

    Attributes:
        key: Tells it from all other sources of its site; also its name in an address.
        name: Whose events they are, for people.
        place: Where they are, for people.
        events: Its events, for `tracker.queries`.
        reads: The reads that go through many of them.
        states: The states by which its events can be filtered; none if it knows of none.
    """

    key: str
    name: str
    place: str
    events: FromClause
    reads: Reads
    states: Sequence[str]

    def read(self, query: Callable[[Connection], T]) -> T:
        """Call `query` with a connection for reading, and return its result.

        It may be called again if the source changed in a way that could have disturbed it.

        Raises:
            UnreadableError: if the source cannot be read.
        """

    def stamp(self, connection: Connection) -> str:
        """Return a text that changes when anything does that a page shows."""

    def lead(self, connection: Connection) -> Lead | None:
        """Return what is first on the overview."""

    def menu(self, connection: Connection) -> Sequence[Entry]:
        """Return the pages of the rail, with counts that cost nothing."""

    def deliveries(self, connection: Connection, session_id: str) -> Mapping[int, Delivery]:
        """Return where the events of a conversation are, by seq; none if that is not known."""

    def in_state(self, state: str) -> ColumnElement[bool]:
        """Return the condition for events in one of `states`."""

    def proof(self, connection: Connection, event_id: str) -> Proof:
        """Return what is known of an event besides its columns."""


@dataclass(frozen=True)
class Choice:
    """The source that a request names, and how addresses name it again.

    Attributes:
        source: The source.
        query: What each address of its pages has in its query.
    """

    source: Source
    query: Mapping[str, str] = field(default_factory=dict)
