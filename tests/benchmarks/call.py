"""One call in one thread, everything included, against a bare insert and against peers."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import children, messages, peers
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, config
from tests.benchmarks.pairs import Timings, interleave, ratio
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.benchmarks.figure import Scale

_GOALS = {"process": (2.0, 2.8), "full": (1.4, 1.5)}
"""At most so many times a table with the same indexes, and one with the fewest."""

_SAME, _LEAST = "the same indexes", "primary key and unique id"


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figures of a single call."""
    rounds = scale.of(20, 6)
    for durability, goals in _GOALS.items():
        took = children.run(against_bare, durability, rounds, 500, timeout=120)
        ours = took.pop("tracker")
        for (table, bare), most in zip(took.items(), goals, strict=True):
            yield Figure(
                f"call.{durability}" if table == _SAME else f"call.{durability}.least",
                f"one call, one thread, {durability}, p50",
                f"sqlite3 insert + commit of the same row, {table}",
                ratio(ours, bare),
                most=most,
                details={"tracker µs": ours.details, "bare µs": bare.details},
            )
    yield from _peers(scale)


def _peers(scale: Scale) -> Iterator[Figure]:
    for name in peers.MAKERS:
        took = children.run(against_peer, name, scale.of(20, 6), 50, timeout=120)
        yield Figure(
            f"call.{name}",
            "one call, one thread, process, p50",
            f"{name}: {peers.PROMISES[name]}",
            ratio(took["tracker"], took[name]),
            most=1.0 if name == "posthog" else None,
            details={f"{side} µs": timings.details for side, timings in took.items()},
        )


def against_bare(durability: str, rounds: int, calls: int) -> dict[str, Timings]:
    """Time the tracker's calls in turns with bare inserts of the very rows that they made."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = config(folder, durability=durability)
        tracker = AgentPerformanceTracker(settings)
        tables = {
            name: Bare(settings.outbox_path, folder / f"{name}.db", durability, indexed=indexed)
            for name, indexed in ((_SAME, True), (_LEAST, False))
        }

        def inserts(table: Bare, _calls: int) -> Sequence[Callable[[], object]]:
            return [partial(table.insert, row) for row in table.new_rows()]

        took = interleave(
            {
                "tracker": partial(messages.calls, tracker),
                **{name: partial(inserts, table) for name, table in tables.items()},
            },
            rounds,
            calls,
        )
        tracker.close(timeout=0)
        for table in tables.values():
            table.close()
        return took


def against_peer(name: str, rounds: int, calls: int) -> dict[str, Timings]:
    """Time the tracker's calls in turns with a peer's, whose server is away as well."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        tracker = AgentPerformanceTracker(config(folder, durability="process"))
        log = peers.MAKERS[name](folder)

        def peer(count: int) -> Sequence[Callable[[], object]]:
            return [partial(log, message) for message in messages.messages(count)]

        took = interleave({"tracker": partial(messages.calls, tracker), name: peer}, rounds, calls)
        tracker.close(timeout=0)
        return took
