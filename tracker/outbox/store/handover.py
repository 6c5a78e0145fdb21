"""`Handover`: how processes that wait for the write lock have their events committed by others."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from tracker import canonical
from tracker._version import __version__
from tracker.clock import monotonic
from tracker.events import Event
from tracker.outbox.files import paths
from tracker.outbox.files.file_lock import PATIENCE_SECONDS
from tracker.outbox.files.pipe import Pipe

if TYPE_CHECKING:
    from pathlib import Path


class Handover:
    """Offers events to the process that has the write lock, and takes what others have offered.

    An offer is a mere hint: who made it waits for the write lock all the same. Then either the
    event is stored, or the offer is still there and is taken back, or it was lost, and the event is
    stored as if it had never been offered. So an offer may be lost at any time: the process that
    took it dies, or its commit fails, or nobody understands it.

    Only offers of the same version of this package, for the same file and with the same chain key,
    are taken, and none that is older than anybody waits.

    Args:
        path: The outbox.
        chain_key: Signs the chain; None if there is no key.
    """

    def __init__(self, path: Path, chain_key: bytes | None) -> None:
        self._path = path
        self._chain_key = chain_key
        self._pipe = Pipe(paths.handover(path), like=path)
        self._mark: str | None = None

    def use_file(self, file: tuple[int, int]) -> None:
        """Offer and take events for the file with this device and inode."""
        known = (__version__, Event._fields, file, canonical.key_check(self._chain_key))
        self._mark = hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def offer(self, event: Event) -> None:
        """Offer an event, if it is short enough and there is room."""
        try:
            said = (self._mark, monotonic(), *event)
            line = json.dumps(said, ensure_ascii=False, default=_from_bytes).encode()
        except (AttributeError, ValueError):  # it waits, as if it were too long
            return
        self._pipe.send(line)

    def take(self) -> dict[str, Event]:
        """Take what is offered, by event id. Only the process that has the write lock keeps it."""
        found = (self._read(line) for line in self._pipe.take())
        return {event.event_id: event for event in found if event is not None}

    def _read(self, line: bytes) -> Event | None:
        try:
            mark, offered_at, *fields = json.loads(line, object_hook=_to_bytes)
            if mark != self._mark or not 0 <= monotonic() - offered_at <= PATIENCE_SECONDS:
                return None
            event = Event(*fields)
        except (LookupError, TypeError, ValueError, RecursionError):  # what somebody else wrote
            return None
        return event if event.is_intact else None

    def close(self) -> None:
        """Close the pipe, and remove it."""
        self._pipe.close()

    def for_child(self) -> Handover:
        """Return the one for a forked child, which leaves the parent's alone."""
        self._pipe.forget()
        return Handover(self._path, self._chain_key)


def _from_bytes(value: bytes) -> dict[str, str]:
    return {"hex": value.hex()}


def _to_bytes(value: dict[str, str]) -> bytes:
    return bytes.fromhex(value["hex"])
