"""A tracker whose deliveries a test reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import AgentPerformanceTracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tracker import APIConfig


class Recorded:
    """A tracker, and what it delivered."""

    def __init__(self, config: APIConfig) -> None:
        self.destination = RecordingDestination()
        self.tracker = AgentPerformanceTracker(config, destination=lambda: self.destination)

    @property
    def events(self) -> list[dict[str, Any]]:
        self.tracker.flush()
        return self.destination.events

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What was recorded of observed functions."""
        return [e["data"] for e in self.events if e["type"] == "function.observed"]
