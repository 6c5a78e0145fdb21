"""One deadline for a whole HTTP request, from the first byte sent to the last one read.

requests and urllib3 limit each wait for bytes, so a server that sends a byte now and then can keep
them waiting forever. Here the sockets know the deadline: no read or write waits longer than the
time that is left. This needs no watchdog thread, which could not be started at interpreter exit.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Deadline(threading.local):
    """The deadline of the request that this thread is making, on the monotonic clock."""

    at: float | None = None
    meanwhile: Callable[[], None] | None = None


_deadline = _Deadline()


@contextmanager
def deadline(seconds: float, meanwhile: Callable[[], None] | None = None) -> Iterator[None]:
    """Limit all reads and writes of this thread on `bounded` sockets inside the block.

    `meanwhile` is called before the first read, while the server processes the request.
    """
    _deadline.at, _deadline.meanwhile = monotonic() + seconds, meanwhile
    try:
        yield
    finally:
        _deadline.at = _deadline.meanwhile = None


def expired() -> bool:
    """Return True if the deadline of the current request has passed."""
    return _deadline.at is not None and monotonic() >= _deadline.at


class _Bounded:
    """Mixin for a socket class: no call lasts beyond the deadline."""

    def recv_into(self, *args: Any) -> int:
        meanwhile, _deadline.meanwhile = _deadline.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        self._bound()
        return super().recv_into(*args)  # type: ignore[misc, no-any-return]  # the socket's

    def recv(self, *args: Any) -> bytes:
        self._bound()
        return super().recv(*args)  # type: ignore[misc, no-any-return]  # the socket's

    def send(self, *args: Any) -> int:
        self._bound()
        return super().send(*args)  # type: ignore[misc, no-any-return]  # the socket's

    def sendall(self, *args: Any) -> None:
        self._bound()
        super().sendall(*args)  # type: ignore[misc]  # the socket's

    def _bound(self) -> None:
        if _deadline.at is None:
            return
        left = _deadline.at - monotonic()
        if left <= 0:
            raise TimeoutError("the request's total time has passed")
        own: float | None = self.gettimeout()  # type: ignore[attr-defined]  # the socket's
        self.settimeout(left if own is None else min(own, left))  # type: ignore[attr-defined]  # the socket's


class _Socket(_Bounded, socket.socket):
    """A TCP socket with a deadline."""


class TLSSocket(_Bounded, ssl.SSLSocket):
    """A TLS socket with a deadline."""


def bounded(plain: socket.socket) -> socket.socket:
    """Return a socket with a deadline in place of `plain`, which must not be used any more."""
    timeout = plain.gettimeout()
    made = _Socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    made.settimeout(timeout)
    return made
