"""How long reads take in an outbox of a million events: ``python -m tests.benchmarks.reads``.

Prints p50 and p95 of each read, and how far the bounds of the issue are: 5 ms for a history, 300 ms
for a day's metrics. Not part of the test gate: it says something of the machine it runs on.
"""

# ruff: noqa: S311 - drawn for a benchmark

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker import APIConfig, canonical
from tracker.ids import new_id
from tracker.outbox.outbox import Outbox
from tracker.queries.conversations import list_conversations
from tracker.queries.history import get_conversation_history
from tracker.queries.metrics import DAY_MS, get_metrics, nearest_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def main() -> None:
    """Build the outbox and measure."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory() as folder:
        config = APIConfig(
            api_key="unused",
            client_id="benchmark",
            base_url="http://127.0.0.1:9",
            outbox_path=Path(folder) / "outbox.sqlite3",
        )
        started = time.perf_counter()
        sessions = build(config, events)
        sys.stdout.write(
            f"{events:,} events of {len(sessions):,} conversations on {DAYS} days, "
            f"{config.outbox_path.stat().st_size / 1e6:.0f} MB, "
            f"made in {time.perf_counter() - started:.0f} s\n"
        )
        outbox = Outbox(config)
        measure(outbox, sessions)
        outbox.close()


def measure(outbox: Outbox, sessions: list[str]) -> None:
    """Time each read over and over, on connections as the tracker's methods use them."""
    draw = random.Random(7)

    def history() -> None:
        with outbox.snapshot() as connection:
            assert get_conversation_history(connection, draw.choice(sessions))

    def day(agent_id: str | None = None) -> None:
        start = FIRST_MS + draw.randrange(DAYS) * DAY_MS
        with outbox.snapshot() as connection:
            assert get_metrics(connection, agent_id, start, start + DAY_MS).messages

    def everything() -> None:
        with outbox.snapshot() as connection:
            assert get_metrics(connection).messages

    def newest(status: str | None = None) -> None:
        with outbox.snapshot() as connection:
            assert list_conversations(connection, status=status)

    report("history of a conversation", history, 1000, bound_ms=5)
    report("metrics of a day", day, 60, bound_ms=300)
    report("metrics of a day, one agent", lambda: day("agent-3"), 60, bound_ms=300)
    report("the newest 50 conversations", newest, 20)
    report("the newest 50 failed ones", lambda: newest("failed"), 10)
    report("metrics of everything", everything, 3)


def report(name: str, read: Callable[[], None], times: int, bound_ms: float | None = None) -> None:
    """Print the percentiles of one read."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        read()
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    p50, p95 = nearest_rank(took, 50), nearest_rank(took, 95)
    said = f"{name:30} {times:5} times   p50 {p50:9.2f} ms   p95 {p95:9.2f} ms"
    if bound_ms is not None:
        said += f"   {'within' if p95 < bound_ms else 'ABOVE'} {bound_ms:g} ms"
    sys.stdout.write(said + "\n")


def build(config: APIConfig, events: int) -> list[str]:
    """Fill the configuration's outbox past the writer; return the session ids."""
    Outbox(config).close()
    sessions: list[str] = []
    with closing(sqlite3.connect(config.outbox_path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(_INSERT, rows(events, sessions))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sessions


def rows(events: int, sessions: list[str]) -> Iterator[tuple[Any, ...]]:
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
            FIRST_MS + seq * DAYS * DAY_MS // (events + 1),
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


if __name__ == "__main__":
    main()
