"""The barest server that gives valid receipts, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from typing_extensions import Self

_SPAWN = multiprocessing.get_context("spawn")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_EVENT_ID = re.compile(rb'"event_id":"([^"]+)"')  # a quote within a text is escaped, so never this
_GZIP = 31
_OTLP = b"POST /v1/traces "


class Received(NamedTuple):
    """What came in so far.

    Attributes:
        requests: Batches.
        events: Events in them.
        bytes: All bytes of the requests, headers included.
    """

    requests: int = 0
    events: int = 0
    bytes: int = 0


class Sink:
    """Reads batches, decompresses them, finds their ids and answers with the receipt.

    A context manager, which owns the process. It stores nothing and checks nothing. What comes over
    OTLP gets the empty answer that says that all of it is stored.

    Args:
        seconds_away: How long each answer takes besides, as over a network.
    """

    def __init__(self, seconds_away: float = 0.0) -> None:
        self._seconds_away = seconds_away

    def __enter__(self) -> Self:
        self._pipe, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(other, self._seconds_away), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._pipe.recv()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def received(self) -> Received:
        """What came in since the last time this was asked."""
        self._pipe.send(None)
        got: Received = self._pipe.recv()
        return got


def _serve(pipe: Connection, seconds_away: float) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    pipe.send(listening.getsockname()[1])
    counted: list[Received] = []
    arguments = (listening, counted, seconds_away)
    threading.Thread(target=_accept, args=arguments, daemon=True).start()
    while True:
        pipe.recv()
        got, counted[:] = list(counted), []
        pipe.send(Received(*(sum(column) for column in zip(*got, strict=True))))


def _accept(listening: socket.socket, counted: list[Received], seconds_away: float) -> None:
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = (connection, counted, seconds_away)
        threading.Thread(target=_answer, args=arguments, daemon=True).start()


def _answer(connection: socket.socket, counted: list[Received], seconds_away: float) -> None:
    with connection, connection.makefile("rb") as stream:
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (line := stream.readline()):
                    return
                head += line
            found = _LENGTH.search(head)
            body = stream.read(int(found[1])) if found else b""
            receipt, events = (b"", 0) if head.startswith(_OTLP) else _receipt(body)
            kind = b"json" if receipt else b"x-protobuf"
            counted.append(Received(1, events, len(head) + len(body)))
            time.sleep(seconds_away)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/%s\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (kind, len(receipt), receipt)
            )


def _receipt(body: bytes) -> tuple[bytes, int]:
    if not body:
        return b'{"protocol":1}', 0
    ids = _EVENT_ID.findall(zlib.decompress(body, wbits=_GZIP))
    receipt = (
        b'{"protocol":1,"first_event_id":"%s","last_event_id":"%s","accepted":%d,'
        b'"duplicates":0,"rejected":[]}' % (ids[0], ids[-1], len(ids))
    )
    return receipt, len(ids)
