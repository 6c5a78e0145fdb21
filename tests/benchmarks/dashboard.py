"""A dashboard over a million events: how soon its pages are there, and what it costs who logs."""

from __future__ import annotations

import re
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import children, messages, reads
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config
from tests.benchmarks.pairs import SHOWN, percentile
from tests.support.cli import start
from tracker import AgentPerformanceTracker
from tracker.queries.figures import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

_LOOKS = 30
_SECONDS = 10.0
_TICK_SECONDS = 2.0
"""How often an open page asks, as its script does."""
_PERIOD = "?period=30d"


class Logged(NamedTuple):
    """How many events a second were logged, and the most bytes that the log had meanwhile."""

    rate: float
    log_bytes: int


def measure(scale: Scale) -> Iterator[Figure]:
    """Build the outbox and yield the figures."""
    events = scale.of(reads.EVENTS, reads.EVENTS // 10)
    with tempfile.TemporaryDirectory() as directory:
        settings = config(Path(directory), durability="process")
        first_ms = time.time_ns() // 1_000_000 - reads.DAYS * DAY_MS
        reads.build(settings, events, first_ms)
        with _viewer(settings.outbox_path) as viewer:
            yield from _pages(viewer, events)
        pairs = [_pair(settings.outbox_path, turn) for turn in range(scale.of(7, 2))]
    yield Figure(
        "dashboard.rate",
        f"events/s logged beside an open dashboard of {events:,} events",
        "without it",
        median(beside.rate / alone.rate for alone, beside in pairs),
        least=0.95,
        details={"ratios": [beside.rate / alone.rate for alone, beside in pairs]},
    )
    yield Figure(
        "dashboard.log",
        "the most that the write-ahead log had meanwhile",
        "without it",
        median(beside.log_bytes / alone.log_bytes for alone, beside in pairs),
        most=1.0,
        details={"MB": [beside.log_bytes / 1e6 for _, beside in pairs]},
    )


class _Viewer:
    """A browser without a script."""

    def __init__(self, link: str) -> None:
        self._home = link.partition("open?")[0]
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._browser.open(link).close()

    def look(self, page: str) -> bytes:
        with self._browser.open(self._home + page) as answer:
            found: bytes = answer.read()
        return found

    def settle(self, page: str) -> bytes:
        while b'data-awaited=""' not in (found := self.look(page)):
            time.sleep(0.1)
        return found

    def took_ms(self, page: str) -> float:
        began = time.perf_counter()
        self.look(page)
        return (time.perf_counter() - began) * 1000


@contextmanager
def _viewer(path: Path) -> Iterator[_Viewer]:
    process = start("--outbox", path, "dashboard")
    try:
        assert process.stdout is not None
        yield _Viewer(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.communicate()


def _pages(viewer: _Viewer, events: int) -> Iterator[Figure]:
    for name, page, most_ms in (("account", _PERIOD, 300), ("conversations", "conversations", 100)):
        html = viewer.settle(page)
        took = [viewer.took_ms(page) for _ in range(_LOOKS)]
        yield Figure(
            f"dashboard.{name}",
            f"page with the {name}, {events:,} events, warm, p50",
            "",
            median(took),
            "ms",
            most=most_ms,
            details={"ms": [percentile(took, p) for p in SHOWN], "kB": len(html) / 1000},
        )
    files = re.findall(r'(?:href|src)="/(static/[^"]+)"', html.decode())
    yield Figure(
        "dashboard.files",
        "style, script and picture",
        "",
        sum(len(viewer.look(each)) for each in {*files}) / 1000,
        "kB",
        most=30,
    )


def _pair(path: Path, turn: int) -> tuple[Logged, Logged]:
    """Log without a dashboard and beside one, in either order."""
    if turn % 2:
        beside = _beside(path)
        return _alone(path), beside
    alone = _alone(path)
    return alone, _beside(path)


def _alone(path: Path) -> Logged:
    return children.run(_log, path, timeout=10 * _SECONDS)


def _beside(path: Path) -> Logged:
    done = threading.Event()
    with _viewer(path) as viewer:

        def watch() -> None:
            while not done.wait(_TICK_SECONDS):
                viewer.look(_PERIOD)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            return _alone(path)
        finally:
            done.set()
            thread.join()


def _log(path: Path) -> Logged:
    """Log as fast as one thread can."""
    log, most, logged = path.with_name(f"{path.name}-wal"), 0, 0
    tracker = AgentPerformanceTracker(config(path.parent, path.stem, durability="process"))
    began = time.monotonic()
    while (took := time.monotonic() - began) < _SECONDS:
        for call in messages.calls(tracker, 100, logged):
            call()
        logged += 100
        most = max(most, log.stat().st_size)
    tracker.close(timeout=0)
    return Logged(logged / took, most)
