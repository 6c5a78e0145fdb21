"""Which events of which kind an outbox has, for reports, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, literal_column, select

from tracker import canonical
from tracker.audit.tally import Tally
from tracker.erasure import ERASED
from tracker.events import (
    AGENT_HEARTBEAT,
    AGENT_REGISTERED,
    AGENT_STATUS_CHANGED,
    COMPLIANCE_ACKNOWLEDGED,
    COMPLIANCE_AUDITED,
    COMPLIANCE_ERASED,
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
    EVENTS_DISCARDED,
    FEEDBACK_RECORDED,
    LLM_USED,
    MESSAGE_LOGGED,
    OTEL_SPAN,
    SCORE_RECORDED,
    SECURITY_REPORTED,
    TOOL_CALLED,
)
from tracker.otel import names
from tracker.queries.model_calls import decoded, first_text
from tracker.queries.source import EVENTS, MAX_TEXT, attributes, in_period, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.audit.tally import Record

USES = 100
"""Most uses that are listed."""
SIX_MONTHS_DAYS = 184
"""The longest six months: July to December."""

CHECKPOINT = "integrity.checkpoint"
KEY_CHANGED = "integrity.key_changed"
RETENTION_APPLIED = "retention.applied"

KINDS = {
    "events": "any event",
    "began": "conversation.started, conversation.resumed; by agent",
    "ended": "conversation.ended, conversation.failed; by outcome or error",
    "open": "a conversation that was started or resumed and has not ended since",
    "messages": "message.logged; by role",
    "tools": "tool.called, otel.span of a tool's work; by tool",
    "models": "llm.used, otel.span of a model's work, each of those inside one another; by model",
    "actors": "compliance.audited; by actor",
    "acknowledged": "compliance.acknowledged; by whom",
    "failures": "conversation.failed; by error",
    "security": "security.reported; by kind and severity",
    "feedback": "feedback.recorded, score.recorded; by source",
    "heartbeats": "agent.heartbeat; by agent",
    "status": "agent.status_changed; by status",
    "registered": "agent.registered; by agent and version",
    "versions": "agent.registered with another version than before; by agent and version",
    "releases": "an event with a release in its context; by release",
    "retention": "retention.applied: a round that removed events",
    "six_months": f"an event of {SIX_MONTHS_DAYS} days ago or before",
    "removed": "seqs that the SDK removed from this outbox: after delivery, for want of room, "
    "or because an operator said so",
    "discarded": "events.discarded: names events that were given up before they were delivered; "
    "by reason",
    "checkpoints": "integrity.checkpoint: a head over all events before it",
    "keys": "integrity.key_changed: another key signs from here on",
    "erasures": "compliance.erased: names events whose content was erased",
    "erased": "an event whose content was erased",
    "reference": "no type of the SDK: log an event of your own, with `track`",
}
"""What there is a record of, and which events those are."""

_OF_TYPE = {
    CONVERSATION_STARTED: ("began",),
    CONVERSATION_RESUMED: ("began",),
    CONVERSATION_ENDED: ("ended",),
    CONVERSATION_FAILED: ("ended", "failures"),
    MESSAGE_LOGGED: ("messages",),
    TOOL_CALLED: ("tools",),
    LLM_USED: ("models",),
    COMPLIANCE_AUDITED: ("actors",),
    COMPLIANCE_ACKNOWLEDGED: ("acknowledged",),
    COMPLIANCE_ERASED: ("erasures",),
    SECURITY_REPORTED: ("security",),
    FEEDBACK_RECORDED: ("feedback",),
    SCORE_RECORDED: ("feedback",),
    AGENT_HEARTBEAT: ("heartbeats",),
    AGENT_STATUS_CHANGED: ("status",),
    AGENT_REGISTERED: ("registered",),
    RETENTION_APPLIED: ("retention",),
    EVENTS_DISCARDED: ("discarded",),
    CHECKPOINT: ("checkpoints",),
    KEY_CHANGED: ("keys",),
}
_FIELDS = {
    CONVERSATION_ENDED: "outcome",
    CONVERSATION_FAILED: "error_type",
    MESSAGE_LOGGED: "role",
    TOOL_CALLED: "name",
    LLM_USED: "model",
    COMPLIANCE_AUDITED: "actor",
    COMPLIANCE_ACKNOWLEDGED: "acknowledged_by",
    FEEDBACK_RECORDED: "source",
    SCORE_RECORDED: "source",
    AGENT_STATUS_CHANGED: "status",
    EVENTS_DISCARDED: "reason",
}

_OF_SPAN = (*names.WORK, *names.MODEL, *names.TOOL_NAME)
"""The attributes of a span by which it is a record."""

_OPENING = (CONVERSATION_STARTED, CONVERSATION_RESUMED)
_CLOSING = (CONVERSATION_ENDED, CONVERSATION_FAILED)
_AGENTS = 10_000
"""Most agents whose version is remembered; those registered last."""
_MOST_RULES = 100
_FETCH_ROWS = 1_000
_GAPS = """
SELECT first_seq, last_seq FROM gaps
WHERE typeof(last_seq) = 'integer' AND last_seq >= max(first_seq, ?) AND first_seq <= ?
ORDER BY first_seq
"""
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Use:
    """The period of one use.

    Attributes:
        session_id: The conversation.
        seq: The event that began it.
        began_at_ms: When, Unix milliseconds.
        end_seq: The event that ended it, or None if none is stored.
        ended_at_ms: When, or None.
    """

    session_id: str
    seq: int
    began_at_ms: int
    end_seq: int | None
    ended_at_ms: int | None


@dataclass(frozen=True)
class AppliedRetention:
    """How long delivered events stay in the outbox, as the newest round that removed some says.

    Attributes:
        seq: The event that says so.
        days: Days by event type or pattern; ``"*"`` is every other type.
        short: Those for which it is less than six months.
    """

    seq: int
    days: Mapping[str, float]
    short: tuple[str, ...]


@dataclass
class Records:
    """The records of a period, Unix milliseconds; call `read` in a transaction.

    Attributes:
        connection: To the outbox.
        since_ms: Start of the period, or None.
        until_ms: End of the period, which is not included, or None.
        now_ms: When they are made.
        first_at_ms: Time of the first event, or None.
        last_at_ms: Time of the last event, or None.
    """

    connection: Connection
    since_ms: int | None
    until_ms: int | None
    now_ms: int
    first_at_ms: int | None = None
    last_at_ms: int | None = None

    def read(self) -> dict[str, Record]:
        """Return the record of each of `KINDS`."""
        tallies = {kind: Tally() for kind in KINDS}
        self._count_events(tallies)
        for seq, session_id in self._rows(_open_uses()):
            tallies["open"].add(seq, value=session_id)
        for seq, version in self._changed_versions():
            tallies["versions"].add(seq, value=version)
        everything = tallies["events"].record()
        for first, last in self._gaps(everything):
            tallies["removed"].add(first, last)
        return {kind: tally.record() for kind, tally in tallies.items()}

    def _count_events(self, tallies: Mapping[str, Tally]) -> None:
        old_ms = self.now_ms - SIX_MONTHS_DAYS * _DAY_MS
        event = EVENTS.c
        erased = event.data == ERASED
        of_span = case((event.type == OTEL_SPAN, attributes(EVENTS, _OF_SPAN)))
        columns = (event.position, event.type, event.timestamp_ms, _value(), of_span, erased)
        query = select(*columns, literal_column("events.context"))
        for seq, type_, time, value, stored, is_erased, context in self._rows(query):
            gone = bool(is_erased)
            tallies["events"].add(seq, erased=gone)
            for kind in _OF_TYPE.get(type_, ()):
                tallies[kind].add(seq, value=value, erased=gone)
            if stored is not None:
                _count_span(tallies, seq, stored)
            if gone:
                tallies["erased"].add(seq)
            if isinstance(time, int) and time <= old_ms:
                tallies["six_months"].add(seq)
            if context is not None and (release := _release(context)) is not None:
                tallies["releases"].add(seq, value=release)
            self.first_at_ms = time if self.first_at_ms is None else self.first_at_ms
            self.last_at_ms = time

    def uses(self) -> tuple[Use, ...]:
        """Return the newest uses that began in the period, at most `USES`, newest first."""
        event, later = EVENTS.c, EVENTS.alias("later")
        end = (
            select(func.min(later.c.position))
            .where(later.c.session_id == event.session_id, later.c.position > event.position)
            .where(later.c.type.in_(_CLOSING))
            .scalar_subquery()
        )
        begun = (
            select(event.session_id, event.position, event.timestamp_ms, end.label("end_seq"))
            .where(event.type.in_(_OPENING), *self._period)
            .order_by(event.position.desc())
            .limit(USES)
            .subquery()
        )
        ends = EVENTS.alias("ends")
        query = (
            select(*begun.c, ends.c.timestamp_ms)
            .select_from(begun.outerjoin(ends, ends.c.position == begun.c.end_seq))
            .order_by(begun.c.position.desc())
        )
        rows = self.connection.execute(query)
        return tuple(Use(str(session)[:MAX_TEXT], *rest) for session, *rest in rows)

    def retention(self) -> AppliedRetention | None:
        """Return what the newest round of retention says; None if no round says anything."""
        query = (
            select(EVENTS.c.position, EVENTS.c.data)
            .where(EVENTS.c.type == RETENTION_APPLIED, *in_period(EVENTS, None, self.until_ms))
            .order_by(EVENTS.c.position.desc())
            .limit(1)
        )
        row = self.connection.execute(query).first()
        days = {} if row is None else _days(row[1])
        if row is None or not days:
            return None
        short = tuple(name for name in days if days[name] < SIX_MONTHS_DAYS)
        return AppliedRetention(row[0], days, short)

    @property
    def _period(self) -> list[Any]:
        return in_period(EVENTS, self.since_ms, self.until_ms)

    def _rows(self, query: Any) -> Iterator[Any]:
        """Yield a query's rows for the events of the period, in order, a few at a time."""
        ordered = query.where(*self._period).order_by(EVENTS.c.position)
        yield from self.connection.execute(ordered, execution_options={"yield_per": _FETCH_ROWS})

    def _changed_versions(self) -> Iterator[tuple[int, str]]:
        """Yield the registrations of the period with another version than the agent's last one."""
        event = EVENTS.c
        query = (
            select(
                event.position, event.timestamp_ms, event.agent_id, text_field(EVENTS, "version")
            )
            .where(event.type == AGENT_REGISTERED, *in_period(EVENTS, None, self.until_ms))
            .order_by(event.position)
        )
        known: dict[object, object] = {}
        for seq, time, agent_id, named in self.connection.execute(
            query, execution_options={"yield_per": _FETCH_ROWS}
        ):
            if named is None:
                continue
            before = known.pop(agent_id, named)
            known[agent_id] = named
            if len(known) > _AGENTS:
                del known[next(iter(known))]
            since = self.since_ms
            within = since is None or (isinstance(time, int) and time >= since)
            if before != named and within:
                yield seq, f"{agent_id} {named}"

    def _gaps(self, everything: Record) -> Iterator[tuple[int, int]]:
        """Yield the removed ranges: between the events of the period, beyond where it is open."""
        first = 0 if self.since_ms is None else everything.first_seq
        last = 2**63 - 1 if self.until_ms is None else everything.last_seq
        if first is None or last is None:
            return
        yield from map(tuple, self.connection.exec_driver_sql(_GAPS, (first, last)))


def _value() -> Any:
    """Return the SQL for what the events of a kind are told apart by."""
    event = EVENTS.c
    version = func.coalesce(text_field(EVENTS, "version"), "")
    return case(
        *((event.type == each, text_field(EVENTS, name)) for each, name in _FIELDS.items()),
        (event.type.in_((*_OPENING, AGENT_HEARTBEAT)), event.agent_id),
        (
            event.type == SECURITY_REPORTED,
            text_field(EVENTS, "kind") + ", " + text_field(EVENTS, "severity"),
        ),
        (event.type == AGENT_REGISTERED, func.rtrim(event.agent_id + " " + version)),
    )


def _open_uses() -> Any:
    event, later = EVENTS.c, EVENTS.alias("later")
    ended = (
        select(later.c.position)
        .where(later.c.session_id == event.session_id, later.c.position > event.position)
        .where(later.c.type.in_(_CLOSING))
        .exists()
    )
    return select(event.position, event.session_id).where(event.type.in_(_OPENING), ~ended)


def _count_span(tallies: Mapping[str, Tally], seq: int, stored: object) -> None:
    """Count a span of OpenTelemetry by what its attributes say that it was."""
    found = decoded(stored, _OF_SPAN)
    work = first_text(found, names.WORK)
    if work in names.MODEL_WORK:
        tallies["models"].add(seq, value=first_text(found, names.MODEL))
    elif work in names.TOOL_WORK:
        tallies["tools"].add(seq, value=first_text(found, names.TOOL_NAME))


@lru_cache(maxsize=128)  # the text is the same for all events of a process
def _release(context: object) -> str | None:
    release = _object(context).get("release")
    return release[:MAX_TEXT] if isinstance(release, str) else None


def _days(data: object) -> dict[str, float]:
    """Return the days in a `retention.applied` event; a row may have been changed by hand."""
    days = _object(data).get("days")
    if not isinstance(days, Mapping):
        return {}
    numbers = (int, float)
    fitting = [each for each in days if isinstance(days[each], numbers)]
    return {name[:MAX_TEXT]: float(days[name]) for name in fitting[:_MOST_RULES]}


def _object(text: object) -> Mapping[str, Any]:
    """Return the JSON object in a column; an empty one if there is none."""
    try:
        found = canonical.decode(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
