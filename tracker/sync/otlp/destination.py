"""`OTLPDestination`: uploads over OTLP/HTTP, to any receiver of OpenTelemetry.

A receipt names every event; OTLP's answers name none. So a batch that is refused is halved, as by
the protocol, and a span that is refused alone becomes a dead letter only if, at that moment, the
receiver accepts a probe and then refuses the span once more. If it refuses the probe as well, the
fault is not the span's: nothing is given up, and from then on there is one request a pause.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import log
from tracker.once import Once
from tracker.redaction.own_keys import know
from tracker.sync.compression import compress
from tracker.sync.destination import Delivery, Outcome, Rejection
from tracker.sync.http_client import HTTPClient
from tracker.sync.otlp import names
from tracker.sync.otlp.answers import Reading, read_answer
from tracker.sync.otlp.encode import Batch
from tracker.sync.otlp.logs import record_of
from tracker.sync.otlp.mapper import Mapper, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracker.config import APIConfig
    from tracker.sync.destination import Upload
    from tracker.sync.otlp.encode import Signal
    from tracker.sync.otlp.mapper import History

_MOST_ANSWER_BYTES = 4 * 1024 * 1024
_MOST_MESSAGES = 500
_MOST_BODY_BYTES = 4 * 1024 * 1024
_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
"""Exactly so: there is a receiver that refuses the type with a parameter."""
_REFUSALS = (Outcome.INVALID, Outcome.TOO_LARGE)


class _Request(NamedTuple):
    """The part of an upload that one request sends, from its first event on.

    Attributes:
        upload: The upload.
        events: Number of events, skipped ones included.
        sent: The ids of those that are sent.
        skipped: The ids of the others.
        signal: What it holds.
        messages: Number of spans or log records.
        body: The compressed body; empty if nothing is to be sent.
    """

    upload: Upload
    events: int
    sent: list[str]
    skipped: list[str]
    signal: Signal
    messages: int
    body: bytes


class OTLPDestination:
    """Posts spans to ``{base_url}/v1/traces`` and, if configured, log records to ``/v1/logs``.

    Args:
        config: Settings.
        outbox_id: The id of the outbox that is uploaded.
        created_at_ms: When that was created, Unix milliseconds.
        history: Reads what else is needed of it.
    """

    def __init__(
        self, config: APIConfig, outbox_id: str, created_at_ms: int, history: History
    ) -> None:
        self._config = config
        self._outbox_id, self._created_at_ms = outbox_id, created_at_ms
        _know_headers(config.otlp_headers)
        self._client = HTTPClient(config, config.otlp_headers, _MOST_ANSWER_BYTES)
        resource = {
            names.SERVICE_NAME: config.client_id,
            names.SERVICE_INSTANCE_ID: outbox_id,
            **config.otlp_resource,
        }
        self._mapper = Mapper(config.client_id, resource, history, logs=config.otlp_logs)
        self._skipped = frozenset(config.otlp_skip)
        self._skipped_prefixes = tuple(each[:-1] for each in config.otlp_skip if each[-2:] == ".*")
        self._ready: _Request | None = None
        self._vouched = False  # a probe was accepted since the last dead letter
        self._refusing = False  # a probe was refused, and nothing was accepted since
        self._probe_next = False
        self._sent_bytes = 0
        self._notes = Once()

    def send(self, upload: Upload) -> Delivery:
        """Send as many of the events as one request takes; see `Destination`."""
        self._sent_bytes = 0
        delivery = self._send(upload)
        return dataclasses.replace(delivery, sent_bytes=self._sent_bytes)

    def _send(self, upload: Upload) -> Delivery:
        if self._refusing and self._probe_next:
            trial = self._probe("traces")
            if trial.outcome is not Outcome.DELIVERED:
                self._probe_next = False
                return _kept(trial)
            self._refusing, self._vouched = False, True
        ready, self._ready = self._ready, None
        request = ready if ready is not None and ready.upload is upload else self._make(upload)
        if not request.sent:
            return _settled(request)
        return self._conclude(request, self._post(request))

    def ping(self) -> Delivery:
        """Send the probe, which a receiver holds once, however often it is sent."""
        found = self._probe("traces")
        return self._probe("traces") if found.outcome is Outcome.STALE else found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # --- requests ---------------------------------------------------------------------------------

    def _make(self, upload: Upload) -> _Request:
        """Return the request for the first events of an upload, at least one of them."""
        self._mapper.begin()
        batch: Batch | None = None
        sent: list[str] = []
        skipped: list[str] = []
        for event_id, wire in zip(upload.event_ids, upload.events, strict=True):
            event: dict[str, Any] = json.loads(wire)
            if event["type"] in self._skipped or event["type"].startswith(self._skipped_prefixes):
                self._mapper.pass_over(event)
                skipped.append(event_id)
                continue
            signal = self._mapper.signal(event)
            batch = Batch(signal) if batch is None else batch
            if batch.signal != signal or not self._add(batch, event):
                break
            sent.append(event_id)
        count = len(sent) + len(skipped)
        if batch is None:
            return _Request(upload, count, sent, skipped, "traces", 0, b"")
        body = compress(batch.encoded())
        return _Request(upload, count, sent, skipped, batch.signal, batch.messages, body)

    def _add(self, batch: Batch, event: dict[str, Any]) -> bool:
        """Add an event to a batch; return False if it has no room. An empty batch has room."""
        messages = self._mapper.messages(event)
        size = sum(message.ByteSize() for _, message in messages)
        if batch.messages and (
            batch.messages + len(messages) > _MOST_MESSAGES or batch.bytes + size > _MOST_BODY_BYTES
        ):
            return False
        for source, message in messages:
            batch.add(source, message)
        return True

    def _post(self, request: _Request) -> Reading:
        """Send a request; encode the one after it while the server processes this one."""
        whole = request.events == len(request.upload.events)
        following = request.upload.following if whole else None
        meanwhile = None if following is None else partial(self._make_ready, following)
        return self._exchange(request.signal, request.body, meanwhile)

    def _make_ready(self, following: Callable[[], Upload | None]) -> None:
        upload = following()
        if upload is not None:
            self._ready = self._make(upload)

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

    def _conclude(self, request: _Request, reading: Reading) -> Delivery:
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
        all_refused = reading.refused >= request.messages
        if not (alone or all_refused or self._vouched):
            return self._try_probe(request, reading)
        if not (alone or all_refused):
            return dataclasses.replace(delivery, count=request.events)
        return self._bury(request, reading)

    def _try_probe(self, request: _Request, reading: Reading) -> Delivery:
        """Return that a batch is to be halved, if the receiver accepts anything at all."""
        trial = self._probe(request.signal)
        if trial.outcome is not Outcome.DELIVERED:
            return self._refused_both(trial, reading)
        self._vouched = True
        return dataclasses.replace(reading.delivery, count=request.events)

    def _bury(self, request: _Request, reading: Reading) -> Delivery:
        """Make dead letters of what is refused, if a probe is accepted and it is refused again."""
        trial = self._probe(request.signal)
        if trial.outcome is not Outcome.DELIVERED:
            return self._refused_both(trial, reading)
        again = self._exchange(request.signal, request.body)
        self._vouched = False
        if again.delivery.outcome is Outcome.DELIVERED:
            return _settled(request)
        if again.delivery.outcome not in _REFUSALS:
            return again.delivery
        if len(request.sent) > 1 and again.refused < request.messages:
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
        batch = Batch(signal)
        draft = probe(self._config.client_id, self._outbox_id, self._created_at_ms)
        if signal == "traces":
            batch.add(self._mapper.source(), draft.message())
        else:
            event: dict[str, Any] = dict.fromkeys(("agent_id", "session_id", "user_id"))
            event |= {"event_id": self._outbox_id, "type": draft.name, "data": {}}
            event["timestamp_ms"] = self._created_at_ms
            batch.add(self._mapper.source(), record_of(event, draft.trace_id, draft.span_id))
        return self._exchange(signal, compress(batch.encoded())).delivery


def _settled(request: _Request) -> Delivery:
    return Delivery(Outcome.DELIVERED, count=request.events, skipped=request.skipped)


def _kept(delivery: Delivery) -> Delivery:
    """Return that everything is refused, so that nothing is given up."""
    if delivery.outcome not in _REFUSALS:
        return delivery
    cause = f"the server refuses everything, a probe as well: {delivery.cause}"
    return Delivery(Outcome.UNEXPECTED, cause, delivery.code, retry_after=delivery.retry_after)


def _know_headers(headers: Mapping[str, str]) -> None:
    """Have the keys in headers masked wherever a server or a library repeats them."""
    for name, value in headers.items():
        if any(word in name.lower() for word in ("auth", "key", "token", "secret", "cookie")):
            know(value.rpartition(" ")[2])
