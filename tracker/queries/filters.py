"""`Filters`: which events a list shows or a sum counts, the same for commands, reads and routes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, literal, select, true
from sqlalchemy.dialects import sqlite

from tracker import canonical, context_items, validation
from tracker.errors import ValidationError
from tracker.events import CONVERSATION_STARTED
from tracker.queries.source import COLUMNS, EVENTS, has_tag, in_period, text_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection, FromClause

_ANY = ".*"


@dataclass(frozen=True)
class Filters:
    """Which events to read; what is None or empty matches all.

    Attributes:
        since_ms: Only events logged then or later, Unix milliseconds.
        until_ms: Only events logged before, Unix milliseconds.
        agent_id: The agent.
        user_id: The user.
        session_id: The conversation.
        run_id: The run: the conversations that were started with this `run_id`.
        type: The type of the event, or with ``.*`` at its end the beginning of it.
        environment: The environment that the event's context names.
        release: The release that the event's context names.
        tags: Tags that the event's context has, each with its value.

    Raises:
        ValidationError: if the period ends before it begins.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    agent_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    type: str | None = None
    environment: str | None = None
    release: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if None not in (self.since_ms, self.until_ms) and self.since_ms > self.until_ms:  # type: ignore[operator]  # neither is None
            raise ValidationError("until", "is before since; give a later time")

    def without(self, *names: str) -> Filters:
        """Return the same, but for these attributes, not `tags`, which then match all."""
        cleared: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **cleared)

    def of(self, events: FromClause = EVENTS) -> FromClause:
        """Return the events that match, for queries."""
        if self == EVERYTHING:
            return events
        columns = [events.c[name].label(name) for name in COLUMNS]
        return select(*columns).where(*self.conditions(events)).subquery("matching")

    def conditions(
        self, events: FromClause = EVENTS, among: FromClause | None = None
    ) -> list[ColumnElement[bool]]:
        """Return the conditions for events that match.

        Args:
            events: The table of events.
            among: Where the starts of a run's conversations are; by default `events`.
        """
        event = events.c
        found = in_period(events, self.since_ms, self.until_ms)
        for column, value in (
            (event.agent_id, self.agent_id),
            (event.user_id, self.user_id),
            (event.session_id, self.session_id),
            (text_field(events, "environment", "context"), self.environment),
            (text_field(events, "release", "context"), self.release),
        ):
            if value is not None:
                found.append(column == value)
        if self.type is not None:
            found.append(_of_type(event.type, self.type))
        if self.run_id is not None:
            found.append(event.session_id.in_(_sessions_of(events if among is None else among,
                                                            self.run_id)))  # fmt: skip
        return [*found, *(has_tag(events, name, value) for name, value in self.tags)]

    def sql(self, connection: Connection) -> tuple[str, tuple[Any, ...]]:
        """Return the condition for an outbox as SQL text, and the values to bind in it.

        The conversations of the run are those that have been started by now. They are looked up
        here: there is no index for it, and the text may be part of many queries.
        """
        found = self.without("run_id").conditions()
        if self.run_id is not None:
            sessions = connection.execute(_sessions_of(EVENTS, self.run_id)).scalars().all()
            listed = func.json_each(literal(canonical.encode(sessions))).table_valued("value")
            found.append(EVENTS.c.session_id.in_(select(listed.c.value)))
        compiled = and_(true(), *found).compile(dialect=sqlite.dialect())
        return str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ())


EVERYTHING = Filters()


def _of_type(column: ColumnElement[str], given: str) -> ColumnElement[bool]:
    if not given.endswith(_ANY):
        return column == given
    beginning = given[: -len(_ANY) + 1]  # with its dot
    return func.substr(column, 1, len(beginning)) == beginning


def _sessions_of(events: FromClause, run_id: str) -> Any:
    """Return the query for the conversations of a run."""
    started = events.alias("started")
    return select(started.c.session_id).where(
        started.c.type == CONVERSATION_STARTED, text_field(started, "run_id") == run_id
    )


def checked(
    *,
    agent_id: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    since: datetime | int | None = None,
    until: datetime | int | None = None,
    environment: str | None = None,
    release: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Filters:
    """Return the filters that the arguments of a read name.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    return Filters(
        agent_id=validation.check_optional_id("agent_id", agent_id),
        user_id=validation.check_optional_id("user_id", user_id),
        session_id=validation.check_optional_id("session_id", session_id),
        since_ms=milliseconds("since", since),
        until_ms=milliseconds("until", until),
        environment=validation.check_optional_id("environment", environment),
        release=validation.check_optional_id("release", release),
        tags=() if tags is None else tuple(context_items.check_tags(tags).items()),
    )


def milliseconds(argument: str, moment: datetime | int | None) -> int | None:
    """Return a time as Unix milliseconds; None for None.

    Raises:
        ValidationError: if it is neither an int nor an aware datetime.
    """
    if moment is None or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    if not isinstance(moment, datetime):
        raise ValidationError(
            argument, f"is of type {type(moment).__name__}; give a datetime or Unix milliseconds"
        )
    if moment.utcoffset() is None:
        raise ValidationError(
            argument, "has no time zone; give one, as in datetime.now(timezone.utc)"
        )
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    # With integers: the float of timestamp() would be inexact for some milliseconds.
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + (
        since_epoch.microseconds // 1000
    )
