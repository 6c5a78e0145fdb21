"""`HTTPClient`: HTTP requests to one server, whose failures are outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import requests
import urllib3.exceptions

from tracker._version import __version__
from tracker.addresses import is_loopback
from tracker.delivery.compression import decompress
from tracker.delivery.deadline import deadline, expired
from tracker.delivery.outcome import Delivery, Outcome
from tracker.delivery.proxies import without_passwords
from tracker.delivery.transport import Adapter
from tracker.delivery.words import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

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


class Answer(NamedTuple):
    """An answer that was read to its end: its body has no compression any more."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Server(Protocol):
    """Where requests go, and how; an `APIConfig` is one."""

    @property
    def base_url(self) -> str:
        """What every path is appended to."""

    @property
    def connect_timeout(self) -> float:
        """Seconds to wait for a connection."""

    @property
    def read_timeout(self) -> float:
        """Seconds to wait between two bytes of an answer."""

    @property
    def total_timeout(self) -> float:
        """Seconds that a request may take as a whole."""

    @property
    def ca_bundle(self) -> Path | None:
        """A file of further certificates of authorities."""

    @property
    def proxies(self) -> Mapping[str, str] | None:
        """Proxies by scheme; None means those of the environment."""


class Key(Protocol):
    """An API key that may change."""

    def current(self) -> str:
        """Return the key to send now; empty means none."""

    def look_again(self) -> None:
        """Note that the server refused the key."""


class HTTPClient:
    """Makes requests to one server, over at most one connection.

    Redirects are never followed, so the API key is sent to the configured server and nowhere else.
    ``.netrc`` is not read.

    Args:
        server: The server, timeouts, and proxies.
        headers: Headers of every request. With an ``Authorization`` among them, the API key is not
            sent.
        most_bytes: Of an answer, no more is read.
        key: The API key, or None.
    """

    def __init__(
        self,
        server: Server,
        headers: Mapping[str, str],
        most_bytes: int,
        key: Key | None = None,
    ) -> None:
        self._server = server
        self._most_bytes = most_bytes
        self._key = key
        self._adapter = Adapter(server.ca_bundle)
        self._session = self._make_session(headers)
        self._sends_key = "authorization" not in {name.lower() for name in headers}
        proxies = server.proxies
        if proxies is None and is_loopback(urlsplit(server.base_url).hostname or ""):
            proxies = {}  # plain http is allowed there because it never leaves the machine
        self._proxies: dict[str, Any] | None = None
        if proxies is not None:
            # Given to each request, since the environment takes precedence over a session's own;
            # None disables those of the environment.
            self._proxies = {"http": None, "https": None, "all": None, **proxies}

    def _make_session(self, headers: Mapping[str, str]) -> requests.Session:
        session = _Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._adapter)
        session.auth = self._authorize
        session.headers.update(
            {"User-Agent": f"tracker/{__version__}", "Accept-Encoding": "identity", **headers}
        )
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        key = self._key.current() if self._key is not None and self._sends_key else ""
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer | Delivery:
        """Make a request and return its answer, or a Delivery that describes a failure.

        Args:
            method: The verb.
            path: What follows the base URL.
            headers: Further headers.
            body: The body, or None.
            meanwhile: Called while the server processes the request.
        """
        with deadline(self._server.total_timeout, meanwhile):
            try:
                return self._request(method, path, dict(headers or {}), body)
            except _FAILURES as error:
                return self._failed(error)

    @property
    def sent_bytes(self) -> int:
        """Number of bytes that the last request sent."""
        return self._adapter.sent_bytes

    def note_refusal(self) -> None:
        """Note that the server refused the API key, which may be another one the next time."""
        if self._key is not None:
            self._key.look_again()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        self._adapter.begin()
        with self._session.request(
            method,
            self._server.base_url + path,
            data=body,
            headers=headers,
            timeout=(
                min(self._server.connect_timeout, self._server.total_timeout),
                self._server.read_timeout,
            ),
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            # Undecoded: urllib3 limits either what it reads or what it decompresses, not both.
            packed = response.raw.read(self._most_bytes + 1, decode_content=False)
            encoding = response.headers.get("Content-Encoding", "")
            answer = decompress(packed, encoding, self._most_bytes + 1)
            return Answer(response.status_code, response.headers, answer)

    def _failed(self, error: Exception) -> Delivery:
        causes = list(_causes(error))
        connecting = any(isinstance(each, _CONNECTING) for each in causes)
        timed_out = expired() or any(isinstance(each, _TIMEOUTS) for each in causes)
        if timed_out and not connecting:
            return Delivery(
                Outcome.TIMED_OUT,
                f"no complete answer within read_timeout ({self._server.read_timeout:g} s) and "
                f"total_timeout ({self._server.total_timeout:g} s)",
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
