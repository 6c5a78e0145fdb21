"""Events of real calls, and the spans that they are sent as."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tests.support.settings import quick
from tracker import Tracker
from tracker.otlp.encode import Batch
from tracker.otlp.mapper import Mapper
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

CLIENT = "kiosk-17"


class Rows:
    """The events of an outbox, as a mapper asks for them."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        self.events = list(events)
        self.reads = 0

    def earlier(self, session_id: str, after: int, before: int) -> list[dict[str, Any]]:
        self.reads += 1
        return [
            copy.deepcopy(event)
            for event in self.events
            if event["session_id"] == session_id and after < event["seq"] < before
        ]

    def newest_erasure(self) -> int | None:
        return max(
            (event["seq"] for event in self.events if event["type"] == "compliance.erased"),
            default=None,
        )


def logged(folder: Path, log: Callable[[Tracker], object]) -> list[dict[str, Any]]:
    """Return the events of what a function logs, as they are sent."""
    destination = RecordingDestination()
    folder.mkdir(exist_ok=True)
    with Tracker(quick(folder, durability="process"), destination=lambda: destination) as tracker:
        log(tracker)
        assert tracker.flush(20).pending == 0
    return sorted(
        (each for each in destination.events if not each["type"].startswith("integrity.")),
        key=lambda event: int(event["seq"]),
    )


def mapper(events: Iterable[dict[str, Any]], *, logs: bool = False) -> Mapper:
    """Return a mapper over an outbox with these events."""
    return Mapper(CLIENT, {"service.name": CLIENT}, Rows(events), logs=logs)


def spans(events: list[dict[str, Any]], by: Mapper | None = None) -> list[Span]:
    """Return the spans of events, all sent by one mapper."""
    by = by or mapper(events)
    by.begin()
    found: list[Any] = [message for event in events for _, message in by.messages(event)]
    return found


def encoded(events: list[dict[str, Any]], by: Mapper) -> list[bytes]:
    """Return the body of a request for each event by itself."""
    bodies = []
    by.begin()
    for event in events:
        batch = Batch("traces")
        for source, message in by.messages(event):
            batch.add(source, message)
        bodies.append(batch.encoded())
    return bodies
