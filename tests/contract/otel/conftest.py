"""What the tests of spans and log records that come in use."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from tracker import Tracker
from tracker.otel import OutboxSpanProcessor
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.trace import Tracer

    from tests.conftest import MakeConfig


class Row(NamedTuple):
    """An event as any SQLite tool reads it."""

    type: str
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: dict[str, Any]
    trace: dict[str, str] | None
    context: dict[str, Any] | None


def rows(path: Path, *types: str) -> list[Row]:
    """Return the events in an outbox, of some types or of those that came from OpenTelemetry."""
    with closing(sqlite3.connect(path)) as connection:
        columns = ", ".join(Row._fields)
        found = connection.execute(f"SELECT {columns} FROM events ORDER BY seq").fetchall()  # noqa: S608 - our own names
    return [
        Row._make(
            (*each[:4], json.loads(each[4]), *(json.loads(text or "null") for text in each[5:]))
        )
        for each in found
        if each[0] in types or (not types and each[0].startswith("otel."))
    ]


class Traced:
    """A tracker with a processor, and a provider whose spans it stores."""

    def __init__(self, tracker: Tracker, **options: Any) -> None:
        self.tracker = tracker
        self.path = tracker.config.outbox_path
        self.processor = OutboxSpanProcessor(tracker, **options)
        self.provider = TracerProvider(
            resource=Resource({"service.name": "kiosk"}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(self.processor)

    @property
    def otel(self) -> Tracer:
        """OpenTelemetry's tracer."""
        return self.provider.get_tracer("a.library", "1.2")

    def span(self, name: str = "step", **options: Any) -> None:
        """Start a span and end it."""
        self.otel.start_span(name, **options).end()

    def rows(self, *types: str) -> list[Row]:
        return rows(self.path, *types)

    def data(self) -> list[dict[str, Any]]:
        """Return the data of all spans that are stored."""
        return [row.data for row in self.rows("otel.span")]


class MakeTraced:
    """Makes such trackers, and closes them in the end."""

    def __init__(self, config: MakeConfig) -> None:
        self._config = config
        self._made: list[Traced] = []

    def __call__(
        self, *, options: dict[str, Any] | None = None, online: bool = True, **changes: Any
    ) -> Traced:
        if online:
            tracker = Tracker(self._config(**changes), destination=RecordingDestination)
        else:
            tracker = Tracker(self._config(base_url="http://127.0.0.1:9", **changes))
        self._made.append(Traced(tracker, **(options or {})))
        return self._made[-1]

    def close(self) -> None:
        for traced in self._made:
            traced.provider.shutdown()
            traced.tracker.close()


@pytest.fixture
def make_traced(config: MakeConfig) -> Iterator[MakeTraced]:
    made = MakeTraced(config)
    yield made
    made.close()


@pytest.fixture
def traced(make_traced: MakeTraced) -> Traced:
    return make_traced()
