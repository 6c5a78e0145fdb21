"""A destination for tests of code that logs: a real outbox, without a server or a network.

::

    destination = RecordingDestination()
    config = APIConfig(api_key="test", outbox_path=tmp_path / "outbox.sqlite3")
    with AgentPerformanceTracker(config, destination=lambda: destination) as tracker:
        my_agent(tracker)
        tracker.flush()
    assert [event["type"] for event in destination.events] == ["conversation.started", ...]
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from tracker.sync.destination import Delivery, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.destination import Upload


class RecordingDestination:
    """Accepts every upload and keeps its events, as a collector would. Any thread may read it.

    Attributes:
        events: The delivered events in order of arrival, as event objects of the protocol.
        sizes: Number of events of each upload, delivered or not.
        closed: Whether the sync thread has closed it.
    """

    def __init__(self, answer: Callable[[Upload], Delivery] | None = None) -> None:
        """Use `answer` to decide on each upload; by default all are delivered."""
        self.events: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.closed = False
        self._answer = answer
        self._lock = threading.Lock()

    def send(self, upload: Upload) -> Delivery:
        """Keep the events if the answer says that they were delivered."""
        delivery = self._answer(upload) if self._answer else Delivery(Outcome.DELIVERED)
        with self._lock:
            self.sizes.append(len(upload.events))
            if delivery.outcome is Outcome.DELIVERED:
                self.events += [json.loads(event) for event in upload.events]
        return delivery

    def close(self) -> None:
        """Note that no more uploads will follow."""
        self.closed = True
