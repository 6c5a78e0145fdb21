"""How long reads take in an outbox of a million events: p95, held against the bounds."""

# ruff: noqa: S311 - drawn for a benchmark

from __future__ import annotations

import random
import sqlite3
import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config
from tests.benchmarks.pairs import SHOWN, each, percentile
from tracker import canonical, time_ranges
from tracker.ids import new_id
from tracker.outbox.outbox import Outbox
from tracker.queries.conversations import list_conversations
from tracker.queries.figures import DAY_MS
from tracker.queries.filters import Filters
from tracker.queries.history import get_conversation_history
from tracker.queries.metrics import get_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.figure import Scale
    from tracker import APIConfig

EVENTS = 1_000_000
DAYS = 30
FIRST_MS = 1_791_000_000_000 // DAY_MS * DAY_MS

_AT_ONCE = 20
"""Conversations that go on at a time: their events lie between each other's."""
_TURN = ("message.logged", "llm.used", "tool.called", "message.logged")
_WORDS = "lorem ipsum dolor sit amet consectetur " * 20
_INSERT = (
    "INSERT INTO events (seq, event_id, type, timestamp_ms, agent_id, session_id, user_id, data, "
    "digest, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def measure(scale: Scale) -> Iterator[Figure]:
    """Build the outbox and yield the reads' figures."""
    events = scale.of(EVENTS, EVENTS // 10)
    with tempfile.TemporaryDirectory() as directory:
        settings = config(Path(directory))
        sessions = build(settings, events)
        outbox = Outbox(settings)
        for read in reads(outbox, sessions):
            took = [one / 1e6 for one in each([read.once] * read.times)]
            yield Figure(
                f"reads.{read.name.replace(' ', '-')}",
                f"{read.name}, {events:,} events, p95",
                "",
                percentile(took, 95),
                "ms",
                most=read.most_ms,
                details={"ms": [percentile(took, p) for p in SHOWN]},
            )
        outbox.close()


class Read(NamedTuple):
    """A read, how often to time it, and the bound that it is held against, in milliseconds."""

    name: str
    once: Callable[[], None]
    times: int
    most_ms: float | None = None


def reads(outbox: Outbox, sessions: list[str]) -> list[Read]:
    """Return the reads, each on a connection as the tracker's methods use it."""
    draw = random.Random(7)

    def history() -> None:
        with outbox.snapshot() as connection:
            assert get_conversation_history(connection, draw.choice(sessions))

    def day(agent_id: str | None = None) -> None:
        start = FIRST_MS + draw.randrange(DAYS) * DAY_MS
        with outbox.snapshot() as connection:
            assert get_metrics(connection, Filters(start, start + DAY_MS, agent_id)).messages

    def everything() -> None:
        with outbox.snapshot() as connection:
            assert get_metrics(connection).messages

    def newest(status: str | None = None) -> None:
        with outbox.snapshot() as connection:
            assert list_conversations(connection, status=status)

    return [
        Read("history", history, 1000, most_ms=5),
        Read("metrics of a day", day, 60, most_ms=300),
        Read("metrics of a day and agent", lambda: day("agent-3"), 60, most_ms=300),
        Read("newest conversations", newest, 20),
        Read("newest failed ones", lambda: newest("failed"), 10),
        Read("metrics of everything", everything, 3),
    ]


def build(settings: APIConfig, events: int, first_ms: int = FIRST_MS) -> list[str]:
    """Fill the configuration's outbox past the writer; return the session ids."""
    Outbox(settings).close()
    sessions: list[str] = []
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        filled = rows(events, sessions, first_ms)
        for first in range(1, events + 1, time_ranges.EVENTS):
            some = list(islice(filled, time_ranges.EVENTS))
            connection.executemany(_INSERT, some)
            time_ranges.add(connection, first, first + len(some) - 1)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sessions


def rows(events: int, sessions: list[str], first_ms: int = FIRST_MS) -> Iterator[tuple[Any, ...]]:
    """Yield so many rows of conversations that overlap; digests and chain are left blank."""
    draw = random.Random(1)
    live: list[tuple[str, list[str]]] = []
    for seq in range(1, events + 1):
        if len(live) < _AT_ONCE:
            session_id = new_id()
            sessions.append(session_id)
            live.append((session_id, [*_TURN] * draw.randint(3, 8)))
            type_ = "conversation.started"
        else:
            chosen = draw.randrange(len(live))
            session_id, left = live[chosen]
            if left:
                type_ = left.pop()
            else:
                live.pop(chosen)
                type_ = f"conversation.{'failed' if draw.random() < 0.05 else 'ended'}"
        number = int(session_id[-4:], 16)
        yield (
            seq,
            new_id(),
            type_,
            first_ms + seq * DAYS * DAY_MS // (events + 1),
            f"agent-{number % 10}",
            session_id,
            f"user-{number % 5000}",
            canonical.encode(data_of(type_, draw)),
            "0" * 64,
            "0" * 64,
        )


def data_of(type_: str, draw: random.Random) -> dict[str, Any]:
    """Return an event's data, about as long as real ones."""
    if type_ == "message.logged" and draw.random() < 0.5:
        return {"role": "user", "content": _WORDS[: draw.randint(20, 400)]}
    if type_ == "message.logged":
        return {
            "role": "agent",
            "content": _WORDS[: draw.randint(100, 700)],
            "response_time_ms": round(draw.expovariate(1 / 900), 2),
            "tokens_used": draw.randint(10, 900),
            "model": "model-1",
        }
    if type_ == "llm.used":
        return {
            "provider": "provider",
            "model": "model-1",
            "prompt_tokens": 1000,
            "completion_tokens": draw.randint(10, 900),
            "total_tokens": draw.randint(1010, 1900),
            "cost_usd": round(draw.random() / 50, 6),
            "latency_ms": 800.5,
        }
    if type_ == "tool.called":
        result = {"found": True, "text": _WORDS[: draw.randint(10, 500)]}
        return {"name": "find", "arguments": {"id": 7}, "result": result, "duration_ms": 12.5}
    if type_ == "conversation.ended":
        return {"quality_score": draw.choice([1.0, 2.5, 4.0, 5.0]), "outcome": "resolved"}
    if type_ == "conversation.failed":
        return {"error_type": "TimeoutError", "error_message": "took too long"}
    return {}
