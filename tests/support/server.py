"""A real HTTP server on loopback that answers as a test tells it to, however wrongly."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

_JOIN_SECONDS = 10


@dataclass(frozen=True)
class Request:
    """One request as it came in.

    Attributes:
        method: The verb.
        path: Path and query.
        headers: Every header, names in lower case.
        raw: The body's bytes as sent.
        body: The body without its compression.
        at: When it was read, on the monotonic clock.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The batch's events, in the order sent."""
        events: list[dict[str, Any]] = self.json["events"]
        return events

    @property
    def event_ids(self) -> list[str]:
        """The ids of the batch's events, in the order sent."""
        return [event["event_id"] for event in self.events]


@dataclass(frozen=True)
class Answer:
    """What goes back, and how.

    Attributes:
        status: Status code.
        headers: Headers besides Content-Length.
        body: The body's bytes.
        hints: Sent before all that: informational answers (1xx).
        raw: Sent instead of everything above, byte for byte.
        claimed_length: Content-Length to claim; by default the truth.
        before: Seconds to wait before the first byte.
        head_pause: Seconds between the bytes of status line and headers.
        body_pause: Seconds between the bytes of the body.
        cut_after: Close the connection after so many bytes of the answer.
        reset: Close by a reset (RST) instead of a proper end.
        endless: Sent after all that, over and over, until the client closes the connection.
        silent: Never answer; the connection stays open until the client closes it.
        accepts: Events that this answer acknowledges; see `ScriptedServer.delivered`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hints: bytes = b""
    raw: bytes | None = None
    claimed_length: int | None = None
    before: float = 0.0
    head_pause: float = 0.0
    body_pause: float = 0.0
    cut_after: int | None = None
    reset: bool = False
    endless: bytes = b""
    silent: bool = False
    accepts: Sequence[str] = ()

    def head(self) -> bytes:
        """Return status line and headers."""
        length = len(self.body) if self.claimed_length is None else self.claimed_length
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'Odd')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


Reply: TypeAlias = Answer | Callable[[Request], Answer]
"""What a script is made of: an answer, or a function from a request to one."""


def answer(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None, **how: Any
) -> Answer:
    """Return an answer; a body that is not bytes or str becomes JSON."""
    headers = dict(headers or {})
    if not isinstance(body, (bytes, str)):
        headers.setdefault("Content-Type", "application/json")
        body = json.dumps(body)
    text = body.encode() if isinstance(body, str) else body
    return Answer(status, headers, text, **how)


def error(
    status: int, code: str, message: str = "as scripted", headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer with a protocol error body."""
    return answer(status, {"error": {"code": code, "message": message}}, headers)


def redirect(status: int, location: str, body: bytes = b"") -> Answer:
    """Return a redirection."""
    return answer(status, body, {"Location": location})


def receipt(
    *,
    duplicates: int = 0,
    rejected: Mapping[str, tuple[str, str]] | None = None,
    changes: Mapping[str, Any] | None = None,
    **how: Any,
) -> Callable[[Request], Answer]:
    """Return a reply that acknowledges whatever batch comes, and greets whoever pings.

    Args:
        duplicates: How many of the batch were known.
        rejected: Code and message for the events whose content (``data.content``) is named.
        changes: Fields that replace the receipt's own, for receipts that are wrong.
        how: Fields of `Answer`.
    """

    def reply(request: Request) -> Answer:
        if not request.body:
            return answer(200, {"protocol": 1})
        refused = [
            {"event_id": event["event_id"], "code": code, "message": message}
            for event in request.events
            if (reason := (rejected or {}).get(event["data"].get("content")))
            for code, message in [reason]
        ]
        gone = {item["event_id"] for item in refused}
        body = {
            "protocol": 1,
            "first_event_id": request.event_ids[0],
            "last_event_id": request.event_ids[-1],
            "accepted": len(request.events) - duplicates - len(refused),
            "duplicates": duplicates,
            "rejected": refused,
            **(changes or {}),
        }
        taken = [] if changes else [name for name in request.event_ids if name not in gone]
        return replace(answer(200, body, **how), accepts=taken)

    return reply


def cut(reply: Reply, *, after: int = 0, reset: bool = False) -> Callable[[Request], Answer]:
    """Return `reply` with the connection closed after so many bytes; nothing is acknowledged."""

    def shortened(request: Request) -> Answer:
        whole = reply(request) if callable(reply) else reply
        return replace(whole, cut_after=after, reset=reset, accepts=())

    return shortened


SILENCE = Answer(silent=True)


class ScriptedServer:
    """Answers each request with the script's next reply, and with `otherwise` at its end.

    As a context manager it is started and stopped. Replies are chosen in the order in which
    requests arrive, under one lock.

    Args:
        context: Speak TLS with this.
        port: TCP port of 127.0.0.1; 0 takes a free one.

    Attributes:
        otherwise: The reply once the script is used up; a valid receipt, unless set.
    """

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.otherwise: Reply = receipt()
        self._context = context
        self._changed = threading.Condition()
        self._script: deque[Reply] = deque()
        self._exchanges: list[tuple[Request, Answer]] = []
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections_made = 0
        """TCP connections so far, whether or not a request came over them."""
        self.endless_bytes = 0
        """Bytes of `Answer.endless` that clients let themselves be sent."""
        self.in_flight = 0
        self.most_in_flight = 0
        """The most requests that were ever unanswered at once."""

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        with self._changed:
            return [request for request, _ in self._exchanges]

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The events that were acknowledged, in that order, repeats included."""
        with self._changed:
            exchanges = list(self._exchanges)
        return [
            event
            for request, given in exchanges
            if given.accepts
            for event in request.events
            if event["event_id"] in set(given.accepts)
        ]

    def script(self, *replies: Reply, otherwise: Reply | None = None) -> None:
        """Answer the next requests with `replies`, in order."""
        with self._changed:
            self._script.extend(replies)
            if otherwise is not None:
                self.otherwise = otherwise

    def wait_for(self, requests: int, timeout: float = 10.0) -> None:
        """Wait until so many requests have come in, or fail."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._exchanges) >= requests, timeout)
            assert came, f"{len(self._exchanges)} of {requests} requests came in {timeout} s"

    def stop(self) -> None:
        """Stop listening, close every connection, and wait for the threads."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)
        self._listener.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="scripted-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections_made += 1
                self._connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        plain = connection
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                with self._changed:
                    self._connections.add(connection)
            _Handler(connection, self)
        except OSError:  # the client went away, or did not like our certificate
            pass
        finally:
            with self._changed:
                self._connections -= {plain, connection}
            connection.close()
            plain.close()

    def respond(self, request: Request, connection: socket.socket) -> bool:
        """Answer one request; tell whether the connection goes on."""
        with self._changed:
            reply = self._script.popleft() if self._script else self.otherwise
            given = reply(request) if callable(reply) else reply
            self._exchanges.append((request, given))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
        try:
            return self._send(given, connection)
        finally:
            with self._changed:
                self.in_flight -= 1

    def _send(self, given: Answer, connection: socket.socket) -> bool:
        if given.silent:
            connection.recv(1)  # until the client gives up
            return False
        self._stopping.wait(given.before)
        if given.raw is not None:
            connection.sendall(given.raw)
            self._send_endlessly(given.endless, connection)
            return False
        whole = given.hints + given.head() + given.body
        end = len(whole) if given.cut_after is None else given.cut_after
        if not (given.head_pause or given.body_pause):
            connection.sendall(whole[:end])
        else:
            self._drip(given, connection, whole[:end])
        self._send_endlessly(given.endless, connection)
        if given.reset:
            linger = struct.pack("ii", 1, 0)  # close() now sends RST
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return end == len(whole) and given.claimed_length is None

    def _send_endlessly(self, piece: bytes, connection: socket.socket) -> None:
        while piece:
            connection.sendall(piece)  # an OSError when the client has enough
            self.endless_bytes += len(piece)

    def _drip(self, given: Answer, connection: socket.socket, data: bytes) -> None:
        head = len(given.hints + given.head())
        for index in range(len(data)):
            pause = given.head_pause if index < head else given.body_pause
            if pause and self._stopping.wait(pause):
                return
            connection.sendall(data[index : index + 1])


class _Handler(BaseHTTPRequestHandler):
    """Reads requests; the answers are the server's."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: socket.socket, scripted: ScriptedServer) -> None:
        self._scripted = scripted
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]  # needs no socketserver

    def _respond(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
        request = Request(self.command, self.path, headers, raw, body, time.monotonic())
        if not self._scripted.respond(request, self.connection):
            self.close_connection = True

    do_GET = do_POST = do_HEAD = do_PUT = do_CONNECT = _respond  # noqa: N815 - http.server looks for these
