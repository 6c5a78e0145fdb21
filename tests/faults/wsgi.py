"""A WSGI application that logs each request with a tracker made at import: before the fork."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import AgentPerformanceTracker, APIConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_tracker = AgentPerformanceTracker(APIConfig(exit_timeout=0.1))
_tracker.log_user_message("preload", "before the fork")


def application(
    environment: dict[str, object], start_response: Callable[..., object]
) -> Iterable[bytes]:
    """Log the request; answer with the event's id."""
    event_id = _tracker.log_user_message("request", str(environment["PATH_INFO"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [event_id.encode()]
