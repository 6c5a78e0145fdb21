"""A TCP proxy between the SDK and a collector that fails in whatever way a test scripts."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable

    from typing_extensions import Self

_JOIN_SECONDS = 10
_CHUNK = 65_536


class Proxy:
    """Listens on a port of 127.0.0.1 and treats each connection by `behaviour`.

    Owns its listener, its connections and a thread for each of them. As a context manager it is
    started and stopped.

    Args:
        upstream: TCP port of 127.0.0.1 that the proxy stands before.

    Attributes:
        behaviour: What becomes of a new connection; `relay` unless set. Use `switch` to change it.
        context: Speak TLS to the client with this.
        connections: TCP connections accepted so far.
        harmed: How often a behaviour did its harm: reset, kept silent, was late or slow, answered.
        seen: Every byte that was read from clients.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.behaviour: Behaviour = relay
        self.context: ssl.SSLContext | None = None
        self.connections = 0
        self.harmed = 0
        self.seen = bytearray()
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._fillers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.refuse()
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)

    def listen(self) -> None:
        """Accept connections, if it does not already."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._start(self._accept, self._listener)

    def refuse(self) -> None:
        """Stop listening and cut every connection: new ones are refused."""
        listener, self._listener = self._listener, None
        for filler in [self._fillers.pop() for _ in list(self._fillers)]:
            filler.close()
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def blackhole(self) -> None:
        """Let the kernel drop what comes in: a backlog that is full, and nobody who accepts."""
        self.refuse()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def switch(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> None:
        """Treat connections so from now on; those that are open are cut."""
        self.behaviour, self.context = behaviour, context
        self.cut()

    def cut(self) -> None:
        """Close every open connection."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def connect(self) -> socket.socket:
        """Return a connection to the collector."""
        upstream = socket.create_connection(("127.0.0.1", self.upstream), timeout=_JOIN_SECONDS)
        upstream.settimeout(None)
        self.own(upstream)
        return upstream

    def own(self, connection: socket.socket) -> None:
        """Let `cut` close a connection too."""
        with self._lock:
            self._open.add(connection)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self.own(connection)
            self._start(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(plain, server_side=True)
                self.own(connection)
            self.behaviour(connection, self)
        except OSError:  # either side went away, or the client does not like our certificate
            pass
        finally:
            with self._lock:
                self._open -= {plain, connection}
            connection.close()

    def read(self, connection: socket.socket, most: int = _CHUNK) -> bytes:
        """Return the client's next bytes, which are kept in `seen`."""
        data = connection.recv(most)
        self.seen += data
        return data

    def read_request(self, connection: socket.socket) -> bytes:
        """Return one whole request; an OSError if the client goes away before."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += self._more(connection)
        return head + b"\r\n\r\n" + body

    def _more(self, connection: socket.socket) -> bytes:
        data = self.read(connection)
        if not data:
            raise ConnectionError("the client went away")
        return data


if TYPE_CHECKING:
    Behaviour = Callable[[socket.socket, Proxy], None]


def reset(connection: socket.socket) -> None:
    """Close a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def relay(connection: socket.socket, proxy: Proxy) -> None:
    """Pass everything on, both ways, request by request."""
    exchange(connection, proxy)


def exchange(
    connection: socket.socket,
    proxy: Proxy,
    *,
    latency: float = 0.0,
    answer_bytes_per_second: float | None = None,
    request_bytes_per_second: float | None = None,
) -> None:
    """Pass requests and answers on, late or slowly."""
    upstream = proxy.connect()
    with upstream:
        while True:
            request = proxy.read_request(connection)
            proxy.harmed += bool(latency or answer_bytes_per_second)
            if request_bytes_per_second:
                proxy.stopping.wait(len(request) / request_bytes_per_second)
            upstream.sendall(_without_host(request))
            answer = _read_answer(upstream)
            proxy.stopping.wait(latency)
            if answer_bytes_per_second is None:
                connection.sendall(answer)
                continue
            step = max(1, int(answer_bytes_per_second / 10))
            for start in range(0, len(answer), step):
                connection.sendall(answer[start : start + step])
                if proxy.stopping.wait(step / answer_bytes_per_second):
                    return


def _without_host(request: bytes) -> bytes:
    """Return a request to a forward proxy as the server itself is asked."""
    method, target, rest = request.split(b" ", 2)
    if target.startswith(b"http://"):
        target = b"/" + target.split(b"/", 3)[3]
    return b" ".join((method, target, rest))


def _read_answer(upstream: socket.socket) -> bytes:
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            lengths = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            if lengths and len(body) >= lengths[0]:
                return data
        more = upstream.recv(_CHUNK)
        if not more:
            raise ConnectionError("the collector went away")
        data += more


def slow(**how: float) -> Behaviour:
    """Return an `exchange` with that latency or those rates."""
    return lambda connection, proxy: exchange(connection, proxy, **how)


def reset_in_request(connection: socket.socket, proxy: Proxy) -> None:
    """Reset the connection in the middle of a request."""
    proxy.read(connection, 300)
    proxy.harmed += 1
    reset(connection)


def lose_receipt(connection: socket.socket, proxy: Proxy) -> None:
    """Let the collector store the events, then reset the connection in the midst of its receipt."""
    with proxy.connect() as upstream:
        upstream.sendall(proxy.read_request(connection))
        connection.sendall(_read_answer(upstream)[:40])
    proxy.harmed += 1
    reset(connection)


def silent(connection: socket.socket, proxy: Proxy) -> None:
    """Read all and never answer."""
    while proxy.read(connection):
        proxy.harmed += 1


def fail_some(share: float, random_: random.Random) -> Behaviour:
    """Return a behaviour that resets so many of the connections, and any after one exchange."""

    def behave(connection: socket.socket, proxy: Proxy) -> None:
        if random_.random() < share:
            proxy.harmed += 1
            reset(connection)
            return
        with proxy.connect() as upstream:
            upstream.sendall(proxy.read_request(connection))
            connection.sendall(_read_answer(upstream))

    return behave


def answer_all(status: str, body: bytes, *headers: str) -> Behaviour:
    """Return a behaviour that answers every request so, in the collector's place."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    raw = "\r\n".join(lines).encode() + body

    def behave(connection: socket.socket, proxy: Proxy) -> None:
        while True:
            proxy.read_request(connection)
            proxy.harmed += 1
            connection.sendall(raw)

    return behave
