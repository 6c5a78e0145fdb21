"""What an outbox of ten million pending rows costs, against one of ten thousand."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import children
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, events, fill
from tests.benchmarks.pairs import Timings, interleave, ratio
from tracker.outbox import status
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.benchmarks.figure import Scale
    from tracker import APIConfig

_SMALL = 10_000
_CHUNK = 500_000
_BATCH = 100
_BATCH_BYTES = 4 * 1024 * 1024
_CALLS = {"append": 50, "next batch": 3, "acknowledge": 1, "status": 5}

# Whole rows stand before these, and are the ones that get read: nobody checks these digests.
_MULTIPLY = """
INSERT INTO events (seq, event_id, type, timestamp_ms, session_id, digest, chain, data)
WITH RECURSIVE place(seq) AS (SELECT ? UNION ALL SELECT seq + 1 FROM place LIMIT ?)
SELECT seq, printf('ffffffff-0000-7000-8000-%012x', seq), 'message.logged', 1800000000000 + seq,
       printf('conversation-%010d', seq / 20), ?, ?,
       '{"content":"Yes, please go ahead with the change of that flight.","role":"user"}'
FROM place
"""


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield a figure for each thing that an outbox does."""
    rows = scale.of(10_000_000, 1_000_000)
    found = children.run(against_small, rows, scale.of(30, 15), timeout=560)
    for name, (large, small) in found.items():
        yield Figure(
            f"size.{name.replace(' ', '-')}",
            f"{name} at {rows:,} pending rows, p50",
            f"the same at {_SMALL:,}",
            ratio(large, small),
            most=1.3,
            details={"large µs": large.details, "small µs": small.details},
        )
    yield Figure(
        "size.status.ms",
        f"status at {rows:,} pending rows, p50",
        "",
        found["status"][0].percentile(50) / 1000,
        "ms",
        most=50,
    )


def against_small(rows: int, rounds: int) -> dict[str, tuple[Timings, Timings]]:
    """Time what an outbox does in a large and a small one, in turns."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        large, small = config(folder, "large"), config(folder, "small")
        fill(large, _SMALL)
        fill(small, _SMALL)
        multiply(large, rows)
        outboxes = {"large": Outbox(large), "small": Outbox(small)}
        found = {}
        for name, calls in _CALLS.items():
            sides = {side: partial(_SIDES[name], outbox) for side, outbox in outboxes.items()}
            took = interleave(sides, rounds, calls)
            found[name] = took["large"], took["small"]
        for outbox in outboxes.values():
            outbox.close()
        return found


def multiply(settings: APIConfig, rows: int) -> None:
    """Add made-up pending rows to an outbox, past its writer, until it holds so many."""
    with closing(sqlite3.connect(settings.outbox_path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
        while last < rows:
            chunk = min(_CHUNK, rows - last)
            connection.execute(_MULTIPLY, (last + 1, chunk, "0" * 64, "0" * 64))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            last += chunk


def _append(outbox: Outbox, calls: int) -> Sequence[Callable[[], object]]:
    return [partial(outbox.append, event) for event in events(calls)]


def _next_batch(outbox: Outbox, calls: int) -> Sequence[Callable[[], object]]:
    return [partial(_read_batch, outbox)] * calls


def _read_batch(outbox: Outbox) -> batches.Batch:
    with outbox.reading() as connection:
        return batches.next_batch(connection, _BATCH, _BATCH_BYTES)


def _acknowledge(outbox: Outbox, calls: int) -> Sequence[Callable[[], object]]:
    return [partial(outbox.run, settlement.settle(_read_batch(outbox)))] * calls


def _status(outbox: Outbox, calls: int) -> Sequence[Callable[[], object]]:
    def look() -> status.OutboxStatus:
        with outbox.snapshot() as connection:
            return status.read(connection)

    return [look] * calls


_SIDES = {
    "append": _append,
    "next batch": _next_batch,
    "acknowledge": _acknowledge,
    "status": _status,
}
