"""The event logger for AI agents that does not lose an event.

Every logging call is committed to a local SQLite outbox before it returns; a background thread
uploads what is pending, in order, until the collector's receipt says that it is stored.
"""

from __future__ import annotations

from tracker._version import __version__
from tracker.config import APIConfig
from tracker.errors import (
    ConfigurationError,
    NotAnOutboxError,
    OutboxError,
    OutboxFullError,
    SchemaVersionError,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)
from tracker.sync.flush import FlushResult
from tracker.trackers.performance import AgentPerformanceTracker

__all__ = [
    "APIConfig",
    "AgentPerformanceTracker",
    "ConfigurationError",
    "FlushResult",
    "NotAnOutboxError",
    "OutboxError",
    "OutboxFullError",
    "SchemaVersionError",
    "TrackerClosedError",
    "TrackerError",
    "ValidationError",
    "__version__",
]
