"""Version 1 of the protocol over HTTP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.clock import monotonic
from tracker.delivery.http_client import HTTPClient
from tracker.sync.api_key import APIKey
from tracker.sync.body import Body
from tracker.sync.destination import Delivery, Outcome
from tracker.sync.receipts import PROTOCOL, read_answer, read_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.config import APIConfig
    from tracker.sync.destination import Upload

_FRESH_SECONDS = 1.0
"""Maximum age of a body that was prepared in advance, since it contains the time of sending."""
_MOST_ANSWER_BYTES = 1024 * 1024
_OTHER_PROTOCOL = "the server does not speak this protocol"


class _Ready(NamedTuple):
    """The batch that is likely to be sent next, its body, and the time when it was encoded."""

    upload: Upload
    body: bytes
    at: float


class HTTPDestination:
    """Posts batches to ``{base_url}/v1/events``."""

    def __init__(self, config: APIConfig, outbox_id: str, api_key: str | None = None) -> None:
        headers = {"X-Client-ID": config.client_id, "Accept": "application/json"}
        self._client = HTTPClient(config, headers, _MOST_ANSWER_BYTES, APIKey(config, api_key))
        self._body = Body(config.client_id, outbox_id)
        self._ready: _Ready | None = None

    def send(self, upload: Upload) -> Delivery:
        """Send one batch; see `Destination`."""
        ready, self._ready = self._ready, None
        fresh = ready is not None and monotonic() - ready.at < _FRESH_SECONDS
        body = ready.body if ready and fresh and ready.upload is upload else self.encode(upload)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        meanwhile = partial(self._make_ready, upload.following)
        answer = self._client.request("POST", "/v1/events", headers, body, meanwhile)
        if isinstance(answer, Delivery):
            delivery = answer
        else:
            delivery = read_answer(*answer, upload.event_ids)
        if delivery.outcome is Outcome.REFUSED:
            self._client.note_refusal()
        return replace(delivery, sent_bytes=self._client.sent_bytes)

    def _make_ready(self, following: Callable[[], Upload | None] | None) -> None:
        """Encode the next batch while the server processes this one."""
        upload = following() if following is not None else None
        if upload is not None:
            self._ready = _Ready(upload, self.encode(upload), monotonic())

    def encode(self, upload: Upload) -> bytes:
        """Return the request body."""
        return self._body.of(upload.events)

    def ping(self) -> Delivery:
        """Return DELIVERED if the server answers and accepts the key."""
        answer = self.read("/v1/ping")
        if isinstance(answer, Delivery):
            return answer
        if answer.get("protocol") == PROTOCOL:
            return Delivery(Outcome.DELIVERED)
        return Delivery(Outcome.UNEXPECTED, _OTHER_PROTOCOL)

    def read(self, path: str) -> dict[str, Any] | Delivery:
        """Return the object that answers a GET request, or a Delivery that describes a failure."""
        answer = self._get(path)
        stale = isinstance(answer, Delivery) and answer.outcome is Outcome.STALE
        return self._get(path) if stale else answer

    def _get(self, path: str) -> dict[str, Any] | Delivery:
        answer = self._client.request("GET", path)
        if isinstance(answer, Delivery):
            return answer
        if answer.status != 200:
            return read_answer(*answer, ())
        found = read_object(answer.body)
        return Delivery(Outcome.UNEXPECTED, _OTHER_PROTOCOL) if found is None else found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
