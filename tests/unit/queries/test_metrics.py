"""Metrics: each figure is the one that plain Python counts from the raw events."""

from __future__ import annotations

import json
import math
import random
import statistics
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.errors import ValidationError
from tracker.ids import new_id
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.figures import DAY_MS, HOUR_MS
from tracker.queries.filters import Filters, checked
from tracker.queries.metrics import Metrics, ResponseTime, get_metrics, nearest_rank
from tracker.queries.scores import ScoreSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

NOON_MS = 1_793_534_400_000
MIDNIGHT_MS = NOON_MS // DAY_MS * DAY_MS


class Raw(NamedTuple):
    """An event as it was logged."""

    type: str
    timestamp_ms: int = NOON_MS
    session_id: str | None = "s-1"
    agent_id: str | None = "a-1"
    data: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


def store(connection: Connection, events: Iterable[Raw]) -> None:
    for event in events:
        connection.exec_driver_sql(
            "INSERT INTO events (event_id, type, timestamp_ms, agent_id, session_id, data, digest, "
            "chain) VALUES (?, ?, ?, ?, ?, ?, '', '')",
            (new_id(), *event[:2], event.agent_id, event.session_id, json.dumps(event.data)),
        )


def metrics_of(
    events: Iterable[Raw],
    agent_id: Any = None,
    since: Any = None,
    until: Any = None,
    step: str = "day",
) -> Metrics:
    with empty_outbox() as connection:
        store(connection, events)
        wanted = checked(agent_id=agent_id, since=since, until=until)
        return get_metrics(connection, wanted, step=step)


# --- The same figures, counted plainly ---------------------------------------------------------


def numbers(events: list[Raw], type: str, name: str) -> list[Any]:
    found = [event.data.get(name) for event in events if event.type == type]
    return [value for value in found if isinstance(value, (int, float))]


def status_of(events: list[Raw]) -> str:
    """Look backwards for how a conversation stands; the last (re)start wipes what was before."""
    ended = False
    for event in reversed(events):
        if event.type in ("conversation.started", "conversation.resumed"):
            break
        if event.type == "conversation.failed":
            return "failed"
        if event.type == "conversation.ended":
            if str(event.data.get("outcome")).lower() in ("failure", "failed", "error"):
                return "failed"
            ended = True
    return "ended" if ended else "open"


def percentile(values: list[float], percent: int) -> float | None:
    """The smallest value that at least so many percent do not exceed."""
    fitting = [v for v in values if sum(w <= v for w in values) * 100 >= percent * len(values)]
    return min(fitting, default=None)


def counted(events: list[Raw]) -> dict[str, Any]:
    sessions: dict[str, list[Raw]] = {}
    for event in events:
        if event.session_id is not None and event.type in (
            *("conversation.started", "conversation.resumed", "conversation.ended"),
            *("conversation.failed", "message.logged", "tool.called"),
        ):
            sessions.setdefault(event.session_id, []).append(event)
    status = [status_of(session) for session in sessions.values()]
    ended, failed = status.count("ended"), status.count("failed")
    ends = [event.data for event in events if event.type == "conversation.ended"]
    outcomes = [data["outcome"] for data in ends if "outcome" in data]
    scores = numbers(events, "conversation.ended", "quality_score")
    times = numbers(events, "message.logged", "response_time_ms")
    types = [event.type for event in events]
    return {
        "conversations": len(sessions),
        "ended": ended,
        "failed": failed,
        "open": status.count("open"),
        "success_rate": ended / (ended + failed) if ended + failed else None,
        "outcomes": {outcome: outcomes.count(outcome) for outcome in outcomes},
        "messages": types.count("message.logged"),
        "tool_calls": types.count("tool.called"),
        "tokens_used": sum(numbers(events, "message.logged", "tokens_used")),
        "response_time": ResponseTime(
            len(times),
            math.fsum(times) / len(times) if times else None,
            *(percentile(times, percent) for percent in (50, 95, 99)),
        ),
        "quality_count": len(scores),
        "quality_mean": math.fsum(scores) / len(scores) if scores else None,
        "quality_distribution": {
            n: sum(n - 0.5 <= score < n + 0.5 for score in scores) for n in range(1, 6)
        },
        "llm_calls": types.count("llm.used"),
        "llm_tokens": sum(numbers(events, "llm.used", "total_tokens")),
        **costs(events),
        "scores": judged(events),
    }


def judged(events: list[Raw]) -> tuple[ScoreSummary, ...]:
    values = {
        "feedback": [
            score for score in numbers(events, "feedback.recorded", "score") if score is not True
        ]
    }
    for event in events:
        if event.type == "score.recorded" and {"name", "value"} <= event.data.keys():
            name, value = event.data["name"], event.data["value"]
            values.setdefault(name, []).append(value)
    return tuple(summed(name, values[name]) for name in sorted(values) if values[name])


def summed(name: str, values: list[Any]) -> ScoreSummary:
    flags = [value for value in values if value in (True, False) and type(value) is bool]
    words = [value for value in values if type(value) is str]
    figures = [value for value in values if type(value) in (int, float)]
    return ScoreSummary(
        name,
        name,
        len(values),
        len(figures),
        math.fsum(figures) / len(figures) if figures else None,
        min(figures) if figures else None,
        max(figures) if figures else None,
        len(flags),
        flags.count(True) / len(flags) if flags else None,
        {word: words.count(word) for word in words},
    )


def figures(metrics: Metrics) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(metrics).items()
        if name not in ("agent_id", "since_ms", "until_ms", "days", "hours")
    }


# --- Events as they may come -------------------------------------------------------------------


def costs(events: list[Raw]) -> dict[str, Any]:
    known = numbers(events, "llm.used", "cost_usd")
    calls = sum(event.type == "llm.used" for event in events)
    return {"cost_usd": math.fsum(known) if known else None, "unpriced": calls - len(known)}


COUNTS = st.integers(0, 10**12) | st.integers(0, 500)
MILLISECONDS = st.floats(0, 1e6).map(lambda value: round(value, 2))
OUTCOMES = st.sampled_from(["resolved", "success", "failure", "Failed", "ERROR", "errors"])


def data_of(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields may be missing or of a wrong type, or all of them erased."""
    odd: dict[str, Any] = {name: values | st.just("odd") for name, values in fields.items()}
    whole, part = st.fixed_dictionaries(fields), st.fixed_dictionaries({}, optional=dict(fields))
    return st.one_of(whole, part, st.just({"erased": True}), st.fixed_dictionaries(odd))


DATA = {
    "conversation.started": st.just({}),
    "conversation.resumed": st.just({}),
    "conversation.ended": data_of(quality_score=st.floats(1, 5), outcome=OUTCOMES),
    "conversation.failed": st.just({"error_message": "late"}),
    "message.logged": data_of(
        tokens_used=COUNTS, response_time_ms=MILLISECONDS, content=st.just("hello")
    ),
    "tool.called": st.just({"name": "find", "arguments": None}),
    "llm.used": data_of(total_tokens=COUNTS, cost_usd=st.floats(0, 10)),
    "feedback.recorded": data_of(score=st.integers(1, 5)),
    "score.recorded": data_of(
        name=st.sampled_from(["a", "b"]),
        value=st.floats(-10, 10) | st.booleans() | st.sampled_from(["x", "y"]),
    ),
}


@st.composite
def raw_events(draw: st.DrawFn) -> Raw:
    type_ = draw(st.sampled_from([*DATA, *["message.logged", "conversation.ended"] * 2]))
    session = st.sampled_from(["s-1", "s-2", "s-3"])
    return Raw(
        type_,
        # Clocks are set back, and processes overtake each other: times are in no order.
        draw(st.integers(MIDNIGHT_MS - DAY_MS, MIDNIGHT_MS + DAY_MS)),
        draw(session | st.none() if type_ in ("message.logged", "llm.used") else session),
        draw(st.sampled_from(["a-1", "a-2", None])),
        draw(DATA[type_]),
    )


MOMENTS = st.none() | st.integers(MIDNIGHT_MS - 2 * DAY_MS, MIDNIGHT_MS + 2 * DAY_MS)


@given(
    events=st.lists(raw_events(), min_size=3, max_size=30),
    agent_id=st.sampled_from([None, None, "a-1", "a-3"]),
    moments=st.tuples(MOMENTS, MOMENTS),
)
def test_every_figure_is_the_plain_count(
    events: list[Raw], agent_id: str | None, moments: tuple[int | None, int | None]
) -> None:
    """In all, for each day and hour, whatever was logged, missing, erased or of a wrong type."""
    since, until = moments
    if since is not None and until is not None and since > until:
        since, until = until, since
    metrics = metrics_of(events, agent_id, since, until)
    within = [
        event
        for event in events
        if (agent_id is None or event.agent_id == agent_id)
        and (since is None or event.timestamp_ms >= since)
        and (until is None or event.timestamp_ms < until)
    ]
    assert figures(metrics) == counted(within)
    hourly = metrics_of(events, agent_id, since, until, step="hour")
    assert figures(hourly) == figures(metrics)
    assert (hourly.days, metrics.hours) == ((), ())
    for found, width in ((metrics.days, DAY_MS), (hourly.hours, HOUR_MS)):
        steps: dict[int, list[Raw]] = {}
        for event in within:
            steps.setdefault(event.timestamp_ms // width, []).append(event)
        assert [figures(one) for one in found] == [counted(steps[one]) for one in sorted(steps)]


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_of_many_events_is_the_plain_count(seed: int) -> None:
    """Enough of them that each percentile is another value, and each sum has many parts."""
    draw = random.Random(seed)  # noqa: S311 - drawn for a test
    events = [a_whole_event(draw) for _ in range(2_000)]
    metrics = metrics_of(events)
    assert figures(metrics) == counted(events)
    assert metrics.response_time.p50_ms != metrics.response_time.p95_ms
    assert min(metrics.ended, metrics.failed, metrics.open, *metrics.outcomes.values()) > 10


def a_whole_event(draw: random.Random) -> Raw:
    type_ = draw.choice(sorted(DATA))
    session_id = f"s-{draw.randrange(300)}"
    data: dict[str, dict[str, Any]] = {
        "conversation.ended": {
            "quality_score": round(draw.uniform(1, 5), 1),
            "outcome": draw.choice(["resolved", "failure"]),
        },
        "message.logged": {
            "response_time_ms": round(draw.expovariate(0.01), 2),
            "tokens_used": draw.randrange(100),
        },
        "llm.used": {"total_tokens": draw.randrange(100), "cost_usd": draw.random() / 100},
    }
    moment = MIDNIGHT_MS + draw.randrange(DAY_MS)
    return Raw(type_, moment, session_id, data=data.get(type_, {}))


def test_a_day_is_what_it_is_alone() -> None:
    """Its bounds, given back, give the same figures; the window cuts the first and last day."""
    events = [Raw("message.logged", NOON_MS + hour * 3_600_000) for hour in range(48)]
    with empty_outbox() as connection:
        store(connection, events)
        metrics = get_metrics(connection, Filters(NOON_MS + 1, NOON_MS + DAY_MS))
        assert [day.day for day in metrics.days] == [date(2026, 11, 1), date(2026, 11, 2)]
        assert [day.messages for day in metrics.days] == [11, 12]
        for day in metrics.days:
            alone = get_metrics(connection, Filters(day.since_ms, day.until_ms))
            assert figures(alone) == figures(day)


@pytest.mark.parametrize(
    ("types", "status"),
    [
        (["started"], "open"),
        (["started", "ended"], "ended"),
        (["started", "failed"], "failed"),
        (["started", "failed", "ended"], "failed"),
        (["started", "ended", "failed"], "failed"),
        (["started", "ended", "resumed"], "open"),
        (["started", "failed", "resumed", "ended"], "ended"),
        (["ended"], "ended"),
    ],
)
def test_how_a_conversation_stands(types: list[str], status: str) -> None:
    """A failure stays one until the conversation is resumed; then what follows counts."""
    metrics = metrics_of([Raw(f"conversation.{type_}") for type_ in types])
    assert {name: getattr(metrics, name) for name in ("open", "ended", "failed")} == {
        "open": 0,
        "ended": 0,
        "failed": 0,
        status: 1,
    }


@pytest.mark.parametrize(
    ("outcome", "rate"), [("resolved", 1.0), ("failure", 0.0), ("Failed", 0.0), ("error", 0.0)]
)
def test_an_outcome_may_say_that_it_failed(outcome: str, rate: float) -> None:
    """Ended with a failure's outcome counts as failed, and as that outcome."""
    metrics = metrics_of([Raw("conversation.ended", data={"outcome": outcome})])
    assert (metrics.success_rate, metrics.outcomes) == (rate, {outcome: 1})


def test_open_conversations_have_no_part_in_the_success_rate() -> None:
    """Nor is there a rate when nothing is over yet."""
    assert metrics_of([Raw("conversation.started")]).success_rate is None
    ended = [Raw("conversation.ended"), Raw("conversation.started", session_id="s-2")]
    assert metrics_of(ended).success_rate == 1.0


def test_percentiles_are_values_that_were_logged() -> None:
    """Of 1 to 100 the 95th is 95; of a single value all are that one; the median is low."""
    hundred = [float(n) for n in range(1, 101)]
    assert [nearest_rank(hundred, percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert [nearest_rank([7.0], percent) for percent in (50, 95, 99)] == [7] * 3
    four = [1.0, 2.0, 10.0, 11.0]
    assert nearest_rank(four, 50) == statistics.median_low(four)


def test_damaged_rows_are_passed_over() -> None:
    """Data cut off, a time that is none: the other rows are counted all the same."""
    with empty_outbox() as connection:
        store(
            connection,
            [
                Raw("message.logged", data={"tokens_used": tokens})
                for tokens in (10**12, 10**12 + 1)
            ],
        )
        store(connection, [Raw("message.logged"), Raw("llm.used"), Raw("conversation.ended")] * 2)
        connection.exec_driver_sql("UPDATE events SET data = '{\"cut' WHERE seq BETWEEN 3 AND 5")
        connection.exec_driver_sql("UPDATE events SET timestamp_ms = 'soon' WHERE seq > 6")
        metrics = get_metrics(connection)
    assert (metrics.messages, metrics.llm_calls, metrics.ended) == (4, 1, 1)
    assert metrics.tokens_used == 10**12  # what no call accepts is left out


def test_moments_are_datetimes_or_milliseconds() -> None:
    """Both mean the same, in any time zone; far-off ones are no trouble."""
    event = [Raw("message.logged", NOON_MS + 1)]
    noon = datetime(2026, 11, 1, 14, 0, 0, 1000, tzinfo=timezone(timedelta(hours=2)))
    assert metrics_of(event, None, noon).messages == 1
    assert metrics_of(event, None, None, noon).messages == 0
    assert metrics_of(event, None, noon + timedelta(milliseconds=1)).messages == 0
    assert metrics_of(event, None, -(10**30), 10**30).messages == 1
    assert metrics_of(event, None, 10**29, 10**30).messages == 0
    assert metrics_of(event, None, -(10**30), -(10**29)).messages == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, datetime(2026, 11, 1)), "since: has no time zone"),
        ((None, "2026-11-01"), "since: is of type str"),
        ((None, True), "since: is of type bool"),
        ((None, 2, 1), "until: is before since"),
        (("",), "agent_id: is empty"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    """As with the logging calls."""
    with pytest.raises(ValidationError, match=message):
        metrics_of([], *arguments)


def test_sessions_and_ranges_of_seq_are_found_without_a_scan() -> None:
    """A period is a range of seqs; a session has an index."""
    with empty_outbox() as connection:
        for query, index in (
            ("session_id = 's' AND type IN ('a', 'b') ORDER BY seq", "ix_events_session_id"),
            ("seq BETWEEN 1 AND 2 AND type = 'a' ORDER BY seq LIMIT 9", "INTEGER PRIMARY KEY"),
        ):
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN SELECT data FROM events WHERE {query}"  # noqa: S608 - constant
            ).all()
            assert len(plan) == 1
            assert index in plan[0][3]
