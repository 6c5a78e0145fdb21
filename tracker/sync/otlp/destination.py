"""`OTLPDestination`: uploads over OTLP/HTTP, to any receiver of OpenTelemetry."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tracker.delivery.headers import know_headers
from tracker.delivery.http_client import HTTPClient
from tracker.otlp import names
from tracker.otlp.mapper import Mapper
from tracker.otlp.probe import Probe
from tracker.otlp.sender import MOST_ANSWER_BYTES, Request, Sender
from tracker.sync.api_key import APIKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.config import APIConfig
    from tracker.delivery.outcome import Delivery
    from tracker.otlp.mapper import History
    from tracker.sync.destination import Upload


class _Ready(NamedTuple):
    """The upload that is likely to be sent next, and the request for it."""

    upload: Upload
    request: Request


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
        know_headers(config.otlp_headers)
        client = HTTPClient(config, config.otlp_headers, MOST_ANSWER_BYTES, APIKey(config))
        resource = {
            names.SERVICE_NAME: config.client_id,
            names.SERVICE_INSTANCE_ID: outbox_id,
            **config.otlp_resource,
        }
        mapper = Mapper(config.client_id, resource, history, logs=config.otlp_logs)
        probe = Probe(config.client_id, outbox_id, created_at_ms, mapper.source())
        self._sender = Sender(client, mapper, probe, config.otlp_skip)
        self._ready: _Ready | None = None

    def send(self, upload: Upload) -> Delivery:
        """Send as many of the events as one request takes; see `Destination`."""
        ready, self._ready = self._ready, None
        is_ready = ready is not None and ready.upload is upload
        request = ready.request if ready is not None and is_ready else self._make(upload)
        whole = request.events == len(upload.events)
        following = upload.following if whole else None
        meanwhile = None if following is None else partial(self._make_ready, following)
        return self._sender.deliver(request, meanwhile)

    def ping(self) -> Delivery:
        """Send the probe, which a receiver holds once, however often it is sent."""
        return self._sender.ping()

    def close(self) -> None:
        """Close the connection."""
        self._sender.close()

    def _make(self, upload: Upload) -> Request:
        wires = zip(upload.event_ids, upload.events, strict=True)
        return self._sender.make((event_id, json.loads(wire)) for event_id, wire in wires)

    def _make_ready(self, following: Callable[[], Upload | None]) -> None:
        upload = following()
        if upload is not None:
            self._ready = _Ready(upload, self._make(upload))
