"""`Forwarder`: sends what arrives on to an OTLP receiver, and keeps the position."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from tracker.collector.forwarding import positions
from tracker.collector.forwarding.arrivals import Span, arrivals
from tracker.collector.forwarding.positions import Move, Refused
from tracker.collector.horizon import Horizon
from tracker.delivery.outcome import Delivery, Outcome, Rejection
from tracker.delivery.retry import Backoff
from tracker.delivery.sizing import Sizing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.collector.database import Database
    from tracker.collector.forwarding.arrivals import Arrival
    from tracker.collector.forwarding.positions import Target
    from tracker.collector.forwarding.translators import Translators
    from tracker.otlp.sender import Request, Sender

logger = logging.getLogger(__name__)

MOST_EVENTS = 500
_MOST_CHARACTERS = 4 * 1024 * 1024
"""Of how many events, and of how much of their data, a request is made at most."""
_PART = 50_000
"""Among how many ids events are looked for at a time: a single client's may be few."""
_BACKOFF_BASE, _BACKOFF_CAP = 1.0, 60.0
_IDLE_SECONDS = 1.0
"""How often new events are looked for."""
_WRITERS_SECONDS = 0.05
"""How often transactions that are storing events are looked at."""


class Pause(NamedTuple):
    """What follows a step.

    Attributes:
        seconds: How long to wait before the next one.
        idle: Whether everything is forwarded.
        problem: Why nothing could be, or empty.
    """

    seconds: float = 0.0
    idle: bool = False
    problem: str = ""


class _Parcel(NamedTuple):
    """Events that one request is about, and the position before them."""

    before: int
    arrivals: Sequence[Arrival]
    request: Request

    @property
    def size(self) -> int:
        return sum(arrival.size for arrival in self.arrivals)

    def first(self, count: int) -> _Parcel:
        return self._replace(arrivals=self.arrivals[:count])


class Forwarder:
    """Sends the events of a target, request by request, in the order of arrival.

    Of no use any more once the database has failed.

    The position moves when the receiver has taken the events, and never otherwise: if the process
    dies in between, they are sent again, as the same spans.

    Args:
        database: Where the events are.
        target: The target, which `positions.begin` knows.
        sender: Makes the requests.
        translators: Those of the sender.
    """

    def __init__(
        self, database: Database, target: Target, sender: Sender, translators: Translators
    ) -> None:
        self._database = database
        self._target = target
        self._sender = sender
        self._translators = translators
        self._sizing = Sizing(MOST_EVENTS, _MOST_CHARACTERS)
        self._backoff = Backoff(_BACKOFF_BASE, _BACKOFF_CAP)
        self._stale = False  # the last request used a connection that the server had closed
        self._problem: str | None = None
        self._horizon = Horizon(database)
        self._seen = 0  # nothing up to here is left to forward, as far as it is known

    def step(self) -> Pause:
        """Send at most one request, and return what follows.

        Raises:
            StorageError: if the database could not be read or written.
            OvertakenError: if another process forwards to the same target.
        """
        if self._seen >= self._horizon.settled:
            if not self._horizon.look():
                return Pause(_WRITERS_SECONDS)
            if self._seen >= self._horizon.settled:
                return Pause(_IDLE_SECONDS, idle=True)
        parcel = self._next()
        if parcel is None:
            return Pause()
        return self._conclude(parcel, self._sender.deliver(parcel.request))

    def _next(self) -> _Parcel | None:
        """Return what is to be sent next; None if there is nothing in the part that was read."""
        with self._database.reading() as connection:
            before = positions.position(connection, self._target)
            after = max(before, self._seen)
            part = Span(after, min(after + _PART, self._horizon.settled))
            sizing = self._sizing
            found = arrivals(connection, self._target, part, sizing.max_events, sizing.max_bytes)
            if not found:
                self._seen = part.through
                return None
            with self._translators.reading(connection):
                request = self._sender.make((str(each.id), each.event) for each in found)
        return _Parcel(before, found, request).first(request.events)

    def _conclude(self, parcel: _Parcel, delivery: Delivery) -> Pause:
        if delivery.count is not None:
            parcel = parcel.first(delivery.count)
        stale, self._stale = self._stale, delivery.outcome is Outcome.STALE
        if delivery.outcome is Outcome.DELIVERED:
            return self._settle(parcel, delivery)
        if delivery.outcome in (Outcome.INVALID, Outcome.TOO_LARGE):
            return self._halve(parcel, delivery)
        if self._stale and not stale:
            return Pause()  # at once: servers may close kept connections at any time
        if delivery.outcome is Outcome.TIMED_OUT:
            self._sizing.timed_out(parcel.size)
        return self._failed(delivery)

    def _halve(self, parcel: _Parcel, delivery: Delivery) -> Pause:
        """Send fewer events, until the one that the receiver does not take stands alone."""
        if len(parcel.arrivals) == 1:
            only = Rejection(str(parcel.arrivals[0].id), delivery.code, delivery.cause)
            pause = self._settle(parcel, Delivery(Outcome.DELIVERED, rejected=[only]))
            self._sizing.found()
            return pause
        if delivery.outcome is Outcome.TOO_LARGE:
            self._sizing.too_large(parcel.size)
        else:
            self._sizing.invalid(len(parcel.arrivals))
        return Pause()

    def _settle(self, parcel: _Parcel, delivery: Delivery) -> Pause:
        codes = {each.event_id: each.code for each in delivery.rejected}
        refused = [
            _refused(arrival, codes[str(arrival.id)])
            for arrival in parcel.arrivals
            if str(arrival.id) in codes
        ]
        done = len(parcel.arrivals) - len(delivery.skipped) - len(refused)
        after = parcel.arrivals[-1].id
        move = Move(parcel.before, after, done, len(delivery.skipped), refused)
        with self._database.writing(f"position of {self._target.name}") as connection:
            positions.move(connection, self._target, move, _now_ms())
        self._seen = after
        self._sizing.passed(len(parcel.arrivals))
        self._backoff.reset()
        for each, words in zip(refused, delivery.rejected, strict=True):
            logger.warning(
                "event %s of client %s (%s) is set aside, since the receiver refuses it: %s",
                *(each.event_id, each.client_id, each.type, words.message),
            )
        if self._problem is not None:
            self._problem = None
            logger.warning("forwarding works again")
        return Pause()

    def _failed(self, delivery: Delivery) -> Pause:
        seconds = self._backoff.pause_after(delivery)
        if delivery.cause != self._problem:  # once, not at every attempt
            self._problem = delivery.cause
            logger.warning("nothing can be forwarded, will retry: %s", delivery.cause)
            with self._database.writing(f"position of {self._target.name}") as connection:
                positions.note_problem(connection, self._target, delivery.cause)
        return Pause(seconds, problem=delivery.cause)


def _refused(arrival: Arrival, code: str) -> Refused:
    event = arrival.event
    whose, which = event["client_id"], event["event_id"]
    return Refused(arrival.id, whose, which, event["type"], code or "rejected")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
