"""`Sender`: requests to an OTLP receiver, and what its answers mean for the events in them.

A receipt names every event; OTLP's answers name none. So a batch that is refused is halved, as by
the protocol, and an event that is refused alone is given up only if, at that moment, the receiver
accepts a probe and then refuses the event once more. If it refuses the probe as well, the fault is
not the event's: nothing is given up, and from then on there is one request a pause.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tracker import log
from tracker.delivery.compression import compress
from tracker.delivery.outcome import Delivery, Outcome, Rejection
from tracker.once import Once
from tracker.otlp.answers import Reading, read_answer
from tracker.otlp.encode import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tracker.delivery.http_client import HTTPClient
    from tracker.otlp.encode import Signal, Source
    from tracker.otlp.mapper import Message
    from tracker.otlp.probe import Probe

MOST_ANSWER_BYTES = 4 * 1024 * 1024
"""Of an answer, no more is to be read."""
_MOST_MESSAGES = 500
_MOST_BODY_BYTES = 4 * 1024 * 1024
_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
"""Exactly so: there is a receiver that refuses the type with a parameter."""
_REFUSALS = (Outcome.INVALID, Outcome.TOO_LARGE)


class Translator(Protocol):
    """What makes spans and log records of events; a `Mapper` is one."""

    def begin(self) -> None:
        """Begin a batch."""

    def signal(self, event: dict[str, Any]) -> Signal:
        """Return what an event becomes."""

    def pass_over(self, event: dict[str, Any]) -> None:
        """Note an event that is not sent."""

    def messages(self, event: dict[str, Any]) -> list[tuple[Source, Message]]:
        """Return what an event is sent as: at least one message."""


class Part(NamedTuple):
    """What goes to one of the receiver's addresses.

    Attributes:
        signal: What it holds.
        messages: Number of spans or log records.
        body: The compressed body.
    """

    signal: Signal
    messages: int
    body: bytes


class Request(NamedTuple):
    """What is sent together: the first of the events that it was made for.

    Attributes:
        events: Number of events, skipped ones included.
        sent: The ids of those that are sent.
        skipped: The ids of the others.
        parts: The spans and the log records, each if there are any.
    """

    events: int
    sent: list[str]
    skipped: list[str]
    parts: list[Part]


class Sender:
    """Posts spans to ``/v1/traces`` and log records to ``/v1/logs`` of a receiver.

    Args:
        client: Makes the requests; it is closed with the sender.
        translator: Makes spans and log records of events.
        probe: What the receiver is tried with.
        skip: Types of events that are not sent, or prefixes such as ``integrity.*``.
    """

    def __init__(
        self, client: HTTPClient, translator: Translator, probe: Probe, skip: Collection[str]
    ) -> None:
        self._client = client
        self._translator = translator
        self._probed = probe
        self._skipped = frozenset(skip)
        self._skipped_prefixes = tuple(each[:-1] for each in skip if each[-2:] == ".*")
        self._vouched = False  # a probe was accepted since an event was given up
        self._refusing = False  # a probe was refused, and nothing was accepted since
        self._probe_next = False
        self._accepted: bytes | None = None  # of a request of which the rest was not
        self._sent_bytes = 0
        self._notes = Once()

    def make(self, events: Iterable[tuple[str, dict[str, Any]]]) -> Request:
        """Return the request for the first events, at least one, each given with an id."""
        self._translator.begin()
        batches: dict[Signal, Batch] = {}
        sent: list[str] = []
        skipped: list[str] = []
        for event_id, event in events:
            if event["type"] in self._skipped or event["type"].startswith(self._skipped_prefixes):
                self._translator.pass_over(event)
                skipped.append(event_id)
                continue
            signal = self._translator.signal(event)
            if not self._add(batches.setdefault(signal, Batch(signal)), event):
                break
            sent.append(event_id)
        parts = [Part(each.signal, each.messages, compress(each.encoded()))
                 for each in batches.values()]  # fmt: skip
        return Request(len(sent) + len(skipped), sent, skipped, parts)

    def deliver(self, request: Request, meanwhile: Callable[[], None] | None = None) -> Delivery:
        """Send a request and return what became of its events.

        Args:
            request: What `make` has returned.
            meanwhile: Called while the server processes the request.

        Returns:
            The result. Its `Delivery.count` is about `Request.events`, except for outcomes after
            which all are sent again.
        """
        self._sent_bytes = 0
        delivery = self._deliver(request, meanwhile)
        return dataclasses.replace(delivery, sent_bytes=self._sent_bytes)

    def _deliver(self, request: Request, meanwhile: Callable[[], None] | None) -> Delivery:
        if self._refusing and self._probe_next:
            trial = self._probe("traces")
            if trial.outcome is not Outcome.DELIVERED:
                self._probe_next = False
                return _kept(trial)
            self._refusing, self._vouched = False, True
        if not request.sent:
            return _settled(request)
        *others, last = request.parts
        for part in others:
            if part.body == self._accepted:  # the last try got so far
                continue
            reading = self._exchange(part.signal, part.body)
            if reading.delivery.outcome is not Outcome.DELIVERED:
                return self._conclude(request, part, reading)
            self._accepted = part.body
        reading = self._exchange(last.signal, last.body, meanwhile)
        if reading.delivery.outcome is Outcome.DELIVERED:
            self._accepted = None  # should the events become pending again, all is sent again
        return self._conclude(request, last, reading)

    def ping(self) -> Delivery:
        """Send the probe, which a receiver holds once, however often it is sent."""
        found = self._probe("traces")
        return self._probe("traces") if found.outcome is Outcome.STALE else found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _add(self, batch: Batch, event: dict[str, Any]) -> bool:
        """Add an event to a batch; return False if it has no room. An empty batch has room."""
        messages = self._translator.messages(event)
        size = sum(message.ByteSize() for _, message in messages)
        if batch.messages and (
            batch.messages + len(messages) > _MOST_MESSAGES or batch.bytes + size > _MOST_BODY_BYTES
        ):
            return False
        for source, message in messages:
            batch.add(source, message)
        return True

    def _exchange(
        self, signal: Signal, body: bytes, meanwhile: Callable[[], None] | None = None
    ) -> Reading:
        answer = self._client.request("POST", f"/v1/{signal}", _HEADERS, body, meanwhile)
        self._sent_bytes += self._client.sent_bytes
        if isinstance(answer, Delivery):
            return Reading(answer)
        reading = read_answer(signal, *answer)
        if reading.delivery.outcome is Outcome.REFUSED:
            self._client.note_refusal()
        if reading.note and self._notes.is_new(reading.note):
            log.warning("the OTLP receiver stored what was sent, and says: %s", reading.note)
        return reading

    # --- answers ----------------------------------------------------------------------------------

    def _conclude(self, request: Request, part: Part, reading: Reading) -> Delivery:
        """Return what the answer to a part of a request means, if it is the last or no success."""
        delivery = reading.delivery
        if delivery.outcome is Outcome.DELIVERED:
            self._refusing = False
            return _settled(request)
        if delivery.outcome not in _REFUSALS:
            return delivery
        if self._refusing:  # the last probe was refused as well
            self._probe_next = True
            return _kept(delivery)
        alone = len(request.sent) == 1
        if not alone and delivery.outcome is Outcome.TOO_LARGE:
            return dataclasses.replace(delivery, count=request.events)
        all_refused = reading.refused >= part.messages and len(request.parts) == 1
        if not (alone or all_refused or self._vouched):
            return self._try_probe(request, part, reading)
        if not (alone or all_refused):
            return dataclasses.replace(delivery, count=request.events)
        return self._bury(request, part, reading)

    def _try_probe(self, request: Request, part: Part, reading: Reading) -> Delivery:
        """Return that a batch is to be halved, if the receiver accepts anything at all."""
        trial = self._probe(part.signal)
        if trial.outcome is not Outcome.DELIVERED:
            return self._refused_both(trial, reading)
        self._vouched = True
        return dataclasses.replace(reading.delivery, count=request.events)

    def _bury(self, request: Request, part: Part, reading: Reading) -> Delivery:
        """Give up what is refused, if a probe is accepted and it is refused again."""
        trial = self._probe(part.signal)
        if trial.outcome is not Outcome.DELIVERED:
            return self._refused_both(trial, reading)
        again = self._exchange(part.signal, part.body)
        self._vouched = False
        if again.delivery.outcome is Outcome.DELIVERED:
            return _settled(request)
        if again.delivery.outcome not in _REFUSALS:
            return again.delivery
        if len(request.sent) > 1 and again.refused < part.messages:
            return dataclasses.replace(again.delivery, count=request.events)
        cause, code = again.delivery.cause, again.delivery.code
        letters = [Rejection(event_id, code, cause) for event_id in request.sent]
        return dataclasses.replace(_settled(request), rejected=letters)

    def _refused_both(self, trial: Delivery, reading: Reading) -> Delivery:
        """Return the result if both what was sent and the probe are not accepted."""
        if trial.outcome not in (*_REFUSALS, Outcome.UNEXPECTED, Outcome.REFUSED):
            return trial  # the receiver went away in between
        self._refusing, self._probe_next = True, False
        return _kept(reading.delivery)

    def _probe(self, signal: Signal) -> Delivery:
        return self._exchange(signal, compress(self._probed.batch(signal).encoded())).delivery


def _settled(request: Request) -> Delivery:
    return Delivery(Outcome.DELIVERED, count=request.events, skipped=request.skipped)


def _kept(delivery: Delivery) -> Delivery:
    """Return that everything is refused, so that nothing is given up."""
    if delivery.outcome not in _REFUSALS:
        return delivery
    cause = f"the server refuses everything, a probe as well: {delivery.cause}"
    return Delivery(Outcome.UNEXPECTED, cause, delivery.code, retry_after=delivery.retry_after)
