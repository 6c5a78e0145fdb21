"""Draining many pending events, against a loop that posts the same bodies, made in advance."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import requests

from tests.benchmarks import children
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, fill, uploads_of
from tests.benchmarks.pairs import turns
from tests.benchmarks.sink import Sink
from tests.support.collector import CollectorProcess
from tracker import AgentPerformanceTracker
from tracker.outbox.outbox import Outbox
from tracker.sync.http import HTTPDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale
    from tracker import APIConfig

CLIENT = "benchmark"
_SECONDS_AWAY = 0.04


class Turns(NamedTuple):
    """Seconds of each round for the tracker, for the loop, and for making the loop's bodies."""

    ours: list[float]
    loop: list[float]
    encoding: list[float]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figures of draining into a bare sink and into the collector."""
    rounds, events = 3, scale.of(100_000, 10_000)
    took = children.run(into_sink, rounds, events, timeout=300)
    yield _figure(took, events, "sink", "a bare sink", None, rounds)
    yield _rate(took, events, "sink", "a bare sink", 40_000)
    events = scale.of(20_000, 5_000)
    took = children.run(into_sink, rounds, events, _SECONDS_AWAY, timeout=300)
    far = f"a bare sink {_SECONDS_AWAY * 1000:g} ms away"
    yield _figure(took, events, "sink.far", far, 1.1, rounds)
    events = scale.of(50_000, 10_000)
    took = children.run(into_collector, rounds, events, timeout=300)
    yield _figure(took, events, "collector", "tracker-collector on SQLite", 1.2, rounds)
    yield _rate(took, events, "collector", "tracker-collector, through both", 10_000)


def _figure(
    took: Turns, events: int, name: str, server: str, most: float | None, rounds: int
) -> Figure:
    return Figure(
        f"drain.{name}",
        f"drain of {rounds} x {events:,} pending events into {server}",
        "a requests loop with the same ready-made bodies",
        median(a / b for a, b in zip(took.ours, took.loop, strict=True)),
        most=most,
        details={
            "tracker s": median(took.ours),
            "loop s": median(took.loop),
            "reading and making the bodies s": median(took.encoding),
        },
    )


def _rate(took: Turns, events: int, name: str, server: str, least: float) -> Figure:
    return Figure(
        f"drain.{name}.rate",
        f"drain into {server}, events per second",
        "",
        events / median(took.ours),
        "events/s",
        least=least,
    )


def into_sink(rounds: int, events: int, seconds_away: float = 0.0) -> Turns:
    """Drain into the barest server that gives receipts."""
    with tempfile.TemporaryDirectory() as directory, Sink(seconds_away) as sink:
        return in_turns(Path(directory), sink.url, "benchmark", rounds, events)


def into_collector(rounds: int, events: int) -> Turns:
    """Drain into the reference collector."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        arguments = ["--rate", "1000000"]
        with CollectorProcess(folder, client_id=CLIENT, arguments=arguments) as collector:
            return in_turns(folder, collector.url, collector.api_key, rounds, events)


def in_turns(folder: Path, url: str, api_key: str, rounds: int, events: int) -> Turns:
    """Drain one outbox, then post another's bodies, and so on; the first round warms up."""
    took = Turns([], [], [])
    for turn in turns(rounds, 60):
        mine, other = (
            config(folder, f"{side}-{turn}", base_url=url, client_id=CLIENT, api_key=api_key)
            for side in ("drained", "posted")
        )
        fill(mine, events)
        fill(other, events)
        took.ours.append(_drain(mine))
        began = time.perf_counter()
        made = bodies(other)
        took.encoding.append(time.perf_counter() - began)
        took.loop.append(post(url, api_key, made))
    return Turns(*(side[1:] for side in took))


def bodies(settings: APIConfig) -> list[bytes]:
    """Return the bodies of all requests that drain an outbox."""
    found = uploads_of(settings)
    outbox = Outbox(settings)
    destination = HTTPDestination(settings, outbox.owner.outbox_id)
    outbox.close()
    return [destination.encode(upload) for upload in found]


def _drain(settings: APIConfig) -> float:
    began = time.perf_counter()
    tracker = AgentPerformanceTracker(settings)
    left = tracker.flush(timeout=120).pending
    seconds = time.perf_counter() - began
    tracker.close()
    if left:
        raise RuntimeError(f"{left} events were not drained")
    return seconds


def post(url: str, api_key: str, ready: list[bytes]) -> float:
    """Post bodies one after the other on one connection; return the seconds it took."""
    headers = {
        "Authorization": f"Bearer {api_key}",
        "X-Client-ID": CLIENT,
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
    }
    with requests.Session() as session:
        session.trust_env = False
        began = time.perf_counter()
        for body in ready:
            answer = session.post(f"{url}/v1/events", data=body, headers=headers, timeout=30)
            answer.raise_for_status()
        return time.perf_counter() - began
