"""Version 1 of the protocol over HTTP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import requests
import urllib3.exceptions

from tracker import log
from tracker._version import __version__
from tracker.clock import monotonic
from tracker.config import is_loopback, watched_key
from tracker.redaction.own_keys import know
from tracker.sync.body import Body
from tracker.sync.compression import decompress
from tracker.sync.deadline import deadline, expired
from tracker.sync.destination import Delivery, Outcome
from tracker.sync.proxies import without_passwords
from tracker.sync.receipts import PROTOCOL, one_line, read_answer, read_object
from tracker.sync.transport import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.config import APIConfig
    from tracker.sync.destination import Upload

_FRESH_SECONDS = 1.0
"""Maximum age of a body that was prepared in advance, since it contains the time of sending."""
_MOST_ANSWER_BYTES = 1024 * 1024
_OTHER_PROTOCOL = "the server does not speak this protocol"
_FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
    TypeError,
)
"""ValueError: a proxy URL that cannot be parsed, or a name that no resolver accepts. TypeError: a
proxy URL without a host."""

_CONNECTING = (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
_TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


class _Session(requests.Session):
    """A session that ignores redirects.

    Otherwise, requests reads the whole body of a redirect, however long, and parses its Location.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: there is no redirect."""


class _Ready(NamedTuple):
    """The batch that is likely to be sent next, its body, and the time when it was encoded."""

    upload: Upload
    body: bytes
    at: float


class HTTPDestination:
    """Posts batches to ``{base_url}/v1/events``.

    Owns a requests session with at most one connection. Redirects are never followed, so the API
    key is sent to `base_url` and nowhere else. ``.netrc`` is not read.
    """

    def __init__(self, config: APIConfig, outbox_id: str, api_key: str | None = None) -> None:
        self._config = config
        self._api_key = config.api_key if api_key is None else api_key
        self._key_file = watched_key(config) if api_key is None else None
        know(self._api_key, config.chain_key)
        self._body = Body(config.client_id, outbox_id)
        self._adapter = Adapter(config.ca_bundle)
        self._session = self._make_session()
        self._ready: _Ready | None = None
        proxies = config.proxies
        if proxies is None and is_loopback(urlsplit(config.base_url).hostname or ""):
            proxies = {}  # plain http is allowed there because it never leaves the machine
        self._proxies: dict[str, Any] | None = None
        if proxies is not None:
            # Given to each request, since the environment takes precedence over a session's own;
            # None disables those of the environment.
            self._proxies = {"http": None, "https": None, "all": None, **proxies}

    def _make_session(self) -> requests.Session:
        session = _Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._adapter)
        session.auth = self._authorize
        session.headers.update(
            {
                "X-Client-ID": self._config.client_id,
                "User-Agent": f"tracker/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            }
        )
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request

    def send(self, upload: Upload) -> Delivery:
        """Send one batch; see `Destination`."""
        ready, self._ready = self._ready, None
        fresh = ready is not None and monotonic() - ready.at < _FRESH_SECONDS
        body = ready.body if ready and fresh and ready.upload is upload else self.encode(upload)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        with deadline(self._config.total_timeout, partial(self._make_ready, upload.following)):
            try:
                status, answer_headers, answer = self._request("POST", "/v1/events", headers, body)
            except _FAILURES as error:
                delivery = self._failed(error)
            else:
                delivery = read_answer(status, answer_headers, answer, upload.event_ids)
        if self._key_file is not None and delivery.outcome is Outcome.REFUSED:
            self._key_file.look_again()
        return replace(delivery, sent_bytes=self._adapter.sent_bytes)

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
        with deadline(self._config.total_timeout):
            try:
                status, headers, answer = self._request("GET", path, {}, None)
            except _FAILURES as error:
                return self._failed(error)
        if status != 200:
            return read_answer(status, headers, answer, ())
        found = read_object(answer)
        return Delivery(Outcome.UNEXPECTED, _OTHER_PROTOCOL) if found is None else found

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, requests.structures.CaseInsensitiveDict[str], bytes]:
        self._adapter.begin()
        self._renew_key()
        with self._session.request(
            method,
            self._config.base_url + path,
            data=body,
            headers=headers,
            timeout=(
                min(self._config.connect_timeout, self._config.total_timeout),
                self._config.read_timeout,
            ),
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            # Undecoded: urllib3 limits either what it reads or what it decompresses, not both.
            packed = response.raw.read(_MOST_ANSWER_BYTES + 1, decode_content=False)
            encoding = response.headers.get("Content-Encoding", "")
            answer = decompress(packed, encoding, _MOST_ANSWER_BYTES + 1)
            return response.status_code, response.headers, answer

    def _renew_key(self) -> None:
        """Use the key that the file holds now, if one is named."""
        if self._key_file is not None and self._key_file.changed():
            self._api_key = self._key_file.current()
            know(self._api_key, self._config.chain_key)  # so that it is masked, as the first is
            log.info("a new API key was read from %s", self._config.api_key_file)

    def _failed(self, error: Exception) -> Delivery:
        causes = list(_causes(error))
        connecting = any(isinstance(each, _CONNECTING) for each in causes)
        timed_out = expired() or any(isinstance(each, _TIMEOUTS) for each in causes)
        if timed_out and not connecting:
            return Delivery(
                Outcome.TIMED_OUT,
                f"no complete answer within read_timeout ({self._config.read_timeout:g} s) and "
                f"total_timeout ({self._config.total_timeout:g} s)",
            )
        outcome = Outcome.STALE if self._adapter.went_stale else Outcome.UNAVAILABLE
        return Delivery(outcome, self._describe(causes[-1]))

    def _describe(self, error: BaseException) -> str:
        """Return one line that describes the error."""
        proxies = getproxies() if self._proxies is None else self._proxies
        text = without_passwords(str(error).split("\n")[0], proxies.values())
        return f"no answer from the server: {type(error).__name__}: {one_line(text)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, from the outermost to the innermost."""
    found: object = error
    while isinstance(found, BaseException):
        yield found
        inner = getattr(found, "reason", None) or found.__cause__ or found.__context__
        found = None if inner is found else inner
