"""Reads of many events hold up nobody who logs, and are equal to reads of all at once."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select

from tests.benchmarks.outboxes import config
from tracker import time_ranges
from tracker.ids import new_id
from tracker.outbox import read_only
from tracker.outbox.outbox import Outbox
from tracker.queries import agents, scores, usage
from tracker.queries.conversations import conversation_page
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.metrics import get_metrics
from tracker.queries.search import search
from tracker.queries.slices import Slices, newest_first
from tracker.queries.source import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, FromClause


COUNT = 20_000
START_MS = 1_790_000_000_000
STEP_MS = 17_000
INSERT = (
    "INSERT INTO events (seq, event_id, type, timestamp_ms, agent_id, session_id, user_id, data, "
    "trace, digest, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', '')"
)
DATA: dict[str, dict[str, Any]] = {
    "conversation.started": {},
    "conversation.ended": {"outcome": "resolved", "quality_score": 4.5},
    "message.logged": {"role": "user", "content": "Where is it?", "tokens_used": 3},
    "llm.used": {"model": "m", "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    "agent.registered": {"name": "Desk", "version": "2"},
    "agent.status_changed": {"status": "busy"},
    "agent.activity": {"activity": "read"},
    "score.recorded": {"name": "helpful", "value": 4},
    "otel.span": {"attributes": {"openinference.span.kind": "LLM"}},
}


def _usage(by: str) -> Callable[[Connection, Filters, FromClause], Any]:
    return lambda connection, wanted, events: usage.usage(connection, by, wanted, events)


READS: dict[str, Callable[[Connection, Filters, FromClause], Any]] = {
    "metrics": get_metrics,
    **{f"usage by {by}": _usage(by) for by in usage.BY},
    "scores": lambda c, wanted, events: scores.get_scores(c, "day", wanted, events),
    "agents": agents.states,
    "activities": lambda c, _, events: agents.last_activities(c, events),
    "agents' overview": agents.overview,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outbox of many events, some of whose clocks were wrong."""
    settings = config(tmp_path_factory.mktemp("many"))
    Outbox(settings).close()
    draw = random.Random(1)  # noqa: S311 - not secrets
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        for first in range(1, COUNT + 1, time_ranges.EVENTS):
            last = min(first + time_ranges.EVENTS - 1, COUNT)
            connection.executemany(INSERT, [row(seq, draw) for seq in range(first, last + 1)])
            time_ranges.add(connection, first, last)
        connection.commit()
    return settings.outbox_path


def row(seq: int, draw: random.Random) -> tuple[Any, ...]:
    type_ = draw.choice([*DATA])
    data, trace = DATA[type_], None
    if type_ == "llm.used":
        data = {**data, "cost_usd": draw.random()}
    elif type_ == "message.logged":
        data = {**data, "response_time_ms": draw.randrange(1_000)}
    elif type_ == "otel.span":
        tokens = {"llm.token_count.prompt": draw.randrange(9)}
        data = {"attributes": {**data["attributes"], **tokens}}
        ids = {"span_id": f"{seq:016x}", "trace_id": f"{draw.randrange(3_000):032x}"}
        trace = json.dumps(ids, separators=(",", ":"))
    at_ms = START_MS + seq * STEP_MS + draw.choice((0, 0, 0, 86_400_000, -86_400_000))
    session, user = f"session-{draw.randrange(seq // 20 + 1)}", f"user-{draw.randrange(50)}"
    whose = (f"agent-{draw.randrange(5)}", session, user)
    return (seq, new_id(), type_, at_ms, *whose, json.dumps(data), trace)


class Application:
    """A program that has the outbox open, and may write to it and begin its log again."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=0)
        self._connection.execute("PRAGMA synchronous=OFF")

    def write(self) -> None:
        self._connection.execute("UPDATE sync_state SET flush_requests = flush_requests + 1")
        self._connection.commit()

    def can_begin_the_log_again(self) -> bool:
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        return not busy

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def application(path: Path) -> Iterator[Application]:
    with closing(Application(path)) as found:
        found.write()
        yield found


@pytest.fixture
def connection(path: Path, application: Application) -> Iterator[Connection]:
    with read_only.connected(path) as found:
        yield found


def close_to(found: Any) -> Any:
    """Return what equals a result, but for the last digits of a sum of floats."""
    return json.loads(
        json.dumps(found, default=vars), parse_float=lambda text: round(float(text), 9)
    )


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        Filters(since_ms=START_MS + 5_000 * STEP_MS, until_ms=START_MS + 16_000 * STEP_MS),
        Filters(agent_id="agent-3", since_ms=START_MS + 12_345 * STEP_MS),
    ],
    ids=["everything", "a period", "an agent"],
)
def test_slices_are_equal_to_one_read(connection: Connection, name: str, wanted: Filters) -> None:
    """Of every sum that pages show; the other table has the same rows, and is read in one go."""
    read = READS[name]
    sliced = read(connection, wanted, EVENTS)
    assert sliced
    assert read(connection, wanted, EVENTS) == sliced
    assert close_to(sliced) == close_to(read(connection, wanted, EVENTS.alias()))


def _everything(name: str, connection: Connection) -> Any:
    return READS[name](connection, EVERYTHING, EVENTS)


LOOKS: dict[str, Callable[[Connection], Any]] = {
    "conversations of nobody": lambda c: conversation_page(
        c, Filters(user_id="nobody"), None, 30, seconds=60
    ),
    "search": lambda c: search(c, "not said", seconds=60),
    "events of no type": lambda c: [
        c.execute(select(EVENTS.c.seq).where(EVENTS.c.type == "none", *some)).all()
        for some in newest_first(c, EVENTS)
    ],
    **{name: partial(_everything, name) for name in READS},
}


@pytest.mark.parametrize("name", LOOKS)
def test_no_read_keeps_the_log_from_being_begun_again(
    application: Application, connection: Connection, name: str
) -> None:
    """Before each statement, no other one is open: an application could begin the log again."""
    statements = 0

    def before(*_: object) -> None:
        nonlocal statements
        statements += 1
        application.write()
        assert application.can_begin_the_log_again()

    event.listen(connection, "before_cursor_execute", before)
    LOOKS[name](connection)
    assert statements > COUNT / 16_000 + 1


def test_slices_become_smaller_where_somebody_writes(
    application: Application, connection: Connection
) -> None:
    """So that each read is over soon; all events are in one of them all the same."""
    slices = Slices(connection, EVENTS)
    query = select(slices.events.c.seq)
    undisturbed = [len(rows) for rows in slices.read(query)]
    disturbed = []
    for rows in slices.read(query):
        disturbed.append(len(rows))
        application.write()
    assert sum(disturbed) == sum(undisturbed) == COUNT
    assert max(disturbed[2:]) < max(undisturbed)


def test_an_outbox_without_events_has_no_slices(tmp_path: Path) -> None:
    outbox = Outbox(config(tmp_path))
    with outbox.reading() as connection:
        slices = Slices(connection, EVENTS)
        assert list(slices.read(select(slices.events.c.seq))) == []
        assert list(newest_first(connection, EVENTS)) == []
    outbox.close()


def test_numbers_that_nobody_has_take_no_time(tmp_path: Path) -> None:
    """A damaged number can be any, and all before an old one may have been removed."""
    settings = config(tmp_path)
    Outbox(settings).close()
    draw = random.Random(2)  # noqa: S311 - not secrets
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        for seq in (1, 2, 10**12, 2**62):
            connection.execute(INSERT, (seq, *row(5, draw)[1:]))
        connection.execute(
            "UPDATE events SET type = 'message.logged', data = '{\"role\":\"user\"}'"
        )
        connection.commit()
    with read_only.connected(settings.outbox_path) as connection_:
        assert get_metrics(connection_).messages == 4
        found = [
            position
            for conditions in newest_first(connection_, EVENTS)
            for position in connection_.execute(
                select(EVENTS.c.position).where(*conditions).order_by(EVENTS.c.position.desc())
            ).scalars()
        ]
    assert found == [2**62, 10**12, 2, 1]
