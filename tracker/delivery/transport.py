"""The HTTP transport of requests: connections with a deadline, and informational answers."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests.adapters
from urllib3.util.ssl_ import create_urllib3_context

from tracker.delivery.deadline import TLSSocket, bounded

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from urllib3 import PoolManager


@dataclass
class Exchange:
    """The state of the current request.

    Attributes:
        connected: Whether a new connection was made for it; otherwise a kept one is used.
        sent: Whether it was passed to a connection.
        heard: Whether bytes of an answer arrived.
        sent_bytes: Number of bytes that were given to its connection.
    """

    connected: bool = False
    sent: bool = False
    heard: bool = False
    sent_bytes: int = 0


class _Answer(http.client.HTTPResponse):
    """An answer that skips informational answers (1xx) before it.

    http.client skips only 100, and returns 102 or 103 as the answer itself.
    """

    exchange: Exchange

    def _read_status(self) -> tuple[str, int, str]:
        # Answers to requests and to a proxy's CONNECT are both read here.
        while True:
            self.exchange.heard |= bool(self.fp.peek(1))
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= found[1] < 200:
                return found
            http.client.parse_headers(self.fp)


class _Connection:
    """Mixin for a connection of urllib3: its socket has the `deadline`."""

    exchange: Exchange

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.exchange.sent = True
        super().request(*args, **kwargs)  # type: ignore[misc]  # the connection's

    def send(self, data: bytes) -> None:
        if self.sock is not None:  # type: ignore[attr-defined]  # the connection's
            self.exchange.sent_bytes += len(data)  # all of it, even if it breaks off
        super().send(data)  # type: ignore[misc]  # the connection's

    def _new_conn(self) -> socket.socket:
        self.exchange.connected = True
        return bounded(super()._new_conn())  # type: ignore[misc]  # the connection's


class Adapter(requests.adapters.HTTPAdapter):
    """A transport adapter for requests, for one thread, with at most one connection.

    Its sockets have the current `deadline`. The certificate authorities in `ca_bundle` are trusted
    in addition to the usual ones.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._exchange = Exchange()
        self._context = create_urllib3_context()
        self._context.sslsocket_class = TLSSocket
        if ca_bundle is not None:
            self._context.load_verify_locations(cafile=str(ca_bundle))
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def begin(self) -> None:
        """Note that a request begins."""
        self._exchange.connected = self._exchange.sent = self._exchange.heard = False
        self._exchange.sent_bytes = 0

    @property
    def went_stale(self) -> bool:
        """Whether the request used a kept connection that was closed before any answer."""
        seen = self._exchange
        return seen.sent and not (seen.connected or seen.heard)

    @property
    def sent_bytes(self) -> int:
        """Number of bytes that the request has sent, TLS apart."""
        return self._exchange.sent_bytes

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of direct connections."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self._use_own_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the pool of connections through `proxy`."""
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        if proxy.lower().startswith("https"):
            kwargs["proxy_ssl_context"] = self._context
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        self._use_own_connections(manager)
        return manager

    def _use_own_connections(self, manager: PoolManager) -> None:
        """Let `manager` use our connection classes, derived from its own (SOCKS included)."""
        own = {"exchange": self._exchange}
        answer = type("Answer", (_Answer,), own)
        pools: dict[str, Any] = {}
        pool: Any
        for scheme, pool in manager.pool_classes_by_scheme.items():
            bases = (_Connection, pool.ConnectionCls)
            connection = type("Connection", bases, {**own, "response_class": answer})
            pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        manager.pool_classes_by_scheme = pools
