"""Scores: ``score.recorded`` events, and ``feedback.recorded`` ones as the score ``feedback``."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from tracker import canonical
from tracker.events import FEEDBACK_RECORDED, SCORE_RECORDED
from tracker.queries.figures import DAY_MS, day_name
from tracker.queries.filters import EVERYTHING
from tracker.queries.slices import Slices
from tracker.queries.source import EVENTS, MAX_TEXT, newest_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, FromClause

    from tracker.queries.filters import Filters

BY = ("name", "day", "release")
"""The groups by which scores can be summed up."""

TYPES = (SCORE_RECORDED, FEEDBACK_RECORDED)
FEEDBACK = "feedback"
"""The name of the score that is read from a ``feedback.recorded`` event."""

_MOST_CATEGORIES = 100

Value = bool | float | str


@dataclass(frozen=True)
class Score:
    """A score.

    Attributes:
        seq: Its position in the outbox.
        event_id: The id of its event.
        timestamp_ms: Time when it was recorded, Unix milliseconds.
        name: What it says, such as ``"helpful"``; ``"feedback"`` for feedback.
        value: A number, True or False, or a category; None for feedback with only a comment.
        session_id: The conversation, or None.
        agent_id: The agent, or None.
        target_event_id: The event that it judges, or None.
        target_trace_id: The trace that it judges, or None.
        comment: A comment, or None.
        source: The source of the score, or None.
    """

    seq: int
    event_id: str
    timestamp_ms: int
    name: str
    value: Value | None
    session_id: str | None = None
    agent_id: str | None = None
    target_event_id: str | None = None
    target_trace_id: str | None = None
    comment: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class ScoreSummary:
    """All scores of one name, or those of a day or of a release.

    Attributes:
        key: The name, the UTC day as ``"2026-11-23"``, or the release; None for no release.
        name: The name of the scores.
        count: Number of scores.
        numbers: Number of those that are numbers.
        mean: Mean of the numbers; None if there are none.
        min: The smallest number.
        max: The largest number.
        booleans: Number of those that are True or False.
        true_share: Share of them that are True, from 0.0 to 1.0; None if there are none.
        categories: Number of scores by category, the 100 most frequent ones.
    """

    key: str | None
    name: str
    count: int
    numbers: int = 0
    mean: float | None = None
    min: float | None = None
    max: float | None = None
    booleans: int = 0
    true_share: float | None = None
    categories: dict[str, int] = field(default_factory=dict)


class Said(NamedTuple):
    """What the data of a score's event says."""

    name: str
    value: Value | None
    data: dict[str, Any]


class Target(NamedTuple):
    """Whom a judged event concerns."""

    session_id: str | None
    agent_id: str | None
    user_id: str | None


def get_scores(
    connection: Connection,
    by: str,
    wanted: Filters = EVERYTHING,
    events: FromClause = EVENTS,
) -> list[ScoreSummary]:
    """Return the scores by one of `BY`: days in order, others by name; then by the score's name."""
    slices = Slices(connection, events, wanted)
    event = slices.events.c
    query = select(event.type, event.data, event.timestamp_ms, event.context).where(
        event.type.in_(TYPES)
    )
    tallies: dict[str | None, Tally] = {}
    for kind, text, timestamp_ms, around in slices.rows(query):
        said = read(kind, text)
        if said is not None and said.value is not None:
            key = _key(by, said.name, timestamp_ms, around)
            tallies.setdefault(key, Tally()).count(said)
    return [
        replace(summary, key=key)
        for key in sorted(tallies, key=lambda key: (key is None, key or ""))
        for summary in tallies[key].summaries()
    ]


def list_scores(
    connection: Connection,
    session_id: str,
    events: FromClause = EVENTS,
    include_comments: bool = True,
    max_characters: int | None = None,
) -> tuple[Score, ...]:
    """Return the scores of a conversation, of its events and its traces, in order.

    With `max_characters`, only the newest ones, as in `newest_page`.
    """
    column = events.c
    query = select(
        *(column.seq, column.event_id, column.timestamp_ms),
        *(column.session_id, column.agent_id, column.type, column.data),
    ).where(column.session_id == session_id, column.type.in_(TYPES))
    rows, _ = newest_page(connection, events, query, None, max_characters=max_characters)
    found = _scores(reversed(rows))
    return tuple(found if include_comments else (replace(score, comment=None) for score in found))


def target(connection: Connection, event_id: str) -> Target | None:
    """Return whom an event of this outbox concerns; None if it is not stored."""
    event = EVENTS.c
    row = connection.execute(
        select(event.session_id, event.agent_id, event.user_id).where(event.event_id == event_id)
    ).first()
    return None if row is None else Target(*row)


def read(kind: str, text: str) -> Said | None:
    """Return what a score's event says; None if it was erased, or is damaged."""
    try:
        data = canonical.decode(text)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("erased") is True:
        return None
    name = FEEDBACK if kind == FEEDBACK_RECORDED else data.get("name")
    if not isinstance(name, str):
        return None
    return Said(name[:MAX_TEXT], _value(data, kind), data)


class Tally:
    """Counts scores by name."""

    def __init__(self) -> None:
        self._values: dict[str, list[Value]] = {}

    def count(self, said: Said) -> None:
        """Count a score; feedback with only a comment is none."""
        if said.value is not None:
            self._values.setdefault(said.name, []).append(said.value)

    def count_stored(self, kind: str, text: str) -> None:
        """Count the score that an event says, if it says one."""
        said = read(kind, text)
        if said is not None:
            self.count(said)

    def summaries(self) -> Iterator[ScoreSummary]:
        """Yield a summary for each name in order, whose key is the name."""
        for name in sorted(self._values):
            yield _summary(name, self._values[name])


def _summary(name: str, values: list[Value]) -> ScoreSummary:
    booleans = [value for value in values if isinstance(value, bool)]
    numbers = [
        value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    categories = Counter(value for value in values if isinstance(value, str))
    return ScoreSummary(
        name,
        name,
        len(values),
        len(numbers),
        _mean(numbers),
        min(numbers, default=None),
        max(numbers, default=None),
        len(booleans),
        sum(booleans) / len(booleans) if booleans else None,
        dict(categories.most_common(_MOST_CATEGORIES)),
    )


def _mean(numbers: list[float]) -> float | None:
    if not numbers:
        return None
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:  # the sum is beyond the range of a float, which the mean is not
        return math.fsum(number / len(numbers) for number in numbers)


def _value(data: dict[str, Any], kind: str) -> Value | None:
    if kind == FEEDBACK_RECORDED:  # always a number
        value = data.get("score")
    else:
        value = data.get("value")
        if isinstance(value, str):
            return value[:MAX_TEXT]
        if isinstance(value, bool):
            return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of a float, which no call stores
        return None


def _key(by: str, name: str, timestamp_ms: object, around: str | None) -> str | None:
    if by == "name":
        return name
    if by == "day":  # a damaged row has a time of any type
        return day_name(timestamp_ms // DAY_MS) if isinstance(timestamp_ms, int) else None
    try:
        release = canonical.decode(around or "{}").get("release")
    except (ValueError, AttributeError):  # a damaged row
        return None
    return release[:MAX_TEXT] if isinstance(release, str) else None


def _scores(rows: Iterable[Any]) -> Iterator[Score]:
    for seq, event_id, timestamp_ms, session_id, agent_id, kind, text in rows:
        said = read(kind, text)
        if said is not None:
            texts = {
                name: value if isinstance(value := said.data.get(name), str) else None
                for name in ("target_event_id", "target_trace_id", "comment", "source")
            }
            yield Score(
                seq, event_id, timestamp_ms, said.name, said.value, session_id, agent_id, **texts
            )
