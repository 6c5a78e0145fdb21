"""`Connection`: uvicorn's HTTP/1.1 with a time limit for the start of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tracker.collector.descriptors import most_connections

if TYPE_CHECKING:
    import asyncio

KEEP_ALIVE_SECONDS = 30
"""How long a connection may be idle between two requests."""
HEAD_SECONDS = 40.0
"""How long the head of a request may take, since the connection or the previous answer."""


class _Strict(h11.Connection):
    """Refuses a request on whose end two servers in a row might not agree.

    In h11, Transfer-Encoding takes precedence over Content-Length (RFC 9112, 6.1 allows that and
    advises against it); a proxy may do otherwise, and treat the rest as another request.
    """

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = [name for name, _ in event.headers]
            if b"transfer-encoding" in names and (
                b"content-length" in names or event.http_version < b"1.1"
            ):
                raise h11.RemoteProtocolError("the request has two lengths, or an invalid one")
        return event


class Connection(H11Protocol):
    """Closes a connection whose next request does not begin in time.

    uvicorn itself waits without limit for the first byte and for each following one: some hundred
    clients that send their headers byte by byte would use up all file descriptors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.__class__ = _Strict  # made by uvicorn, with its limits
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as H11Protocol has it
        """Start the time limit."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            # One more might leave no descriptor for the database.
            transport.close()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Stop the time limit when a request has begun: its body has another one."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Start the time limit again, which includes the unread rest of a body."""
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
