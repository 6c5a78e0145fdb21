"""Where events go: the interface between the sync worker and whatever takes the batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tracker.delivery.outcome import Delivery, Outcome, Rejection, SignedHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Delivery", "Destination", "Outcome", "Rejection", "SignedHead", "Upload"]


@dataclass(frozen=True)
class Upload:
    """A batch of events to send, in ascending seq: their ids and, in the same order, their JSON.

    Attributes:
        event_ids: The ids.
        events: The events, each encoded as a JSON object.
        following: Returns the batch that will be sent next if this one is delivered, or None. A
            destination may call it once, while it waits for the answer, to prepare that batch.
    """

    event_ids: Sequence[str]
    events: Sequence[bytes]
    following: Callable[[], Upload | None] | None = field(default=None, compare=False)


class Destination(Protocol):
    r"""Interface of an object that takes batches in place of the collector.

    Pass a function that makes one as the ``destination`` argument of any tracker. All its methods
    are called by one thread, the sync worker's::

        class FileDestination:
            def __init__(self, path: str) -> None:
                self._file = open(path, "ab")

            def send(self, upload: Upload) -> Delivery:
                self._file.writelines(event + b"\n" for event in upload.events)
                self._file.flush()
                os.fsync(self._file.fileno())
                return Delivery(Outcome.DELIVERED)

            def close(self) -> None:
                self._file.close()


        tracker = AgentPerformanceTracker(destination=lambda: FileDestination("events.jsonl"))

    The same event can be sent more than once, for instance after a crash; its id stays the same.
    """

    def send(self, upload: Upload) -> Delivery:
        """Send one batch and return the result.

        Report a failure as an outcome. An exception is logged and counts as `UNAVAILABLE`.

        Args:
            upload: The batch.
        """

    def close(self) -> None:
        """Release connections and files. No batch is sent afterwards."""
