"""`Meter`: what is counted while the collector works; this one counts nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tracker import clock

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CONVERTER = re.compile(":[a-z]+")


class Meter:
    """Gets told what happens. Any thread may call any method; none may raise or wait.

    Nothing that it gets names a client, a user or an event.
    """

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a request, which took `seconds` from its head on."""

    def stored(self, accepted: int, duplicates: int, rejected: int, seconds: float) -> None:
        """Count a batch that was stored, and its events; checking and storing took `seconds`."""

    def failed(self, *, replicated: bool) -> None:
        """Count a failure of the database; `replicated` is False if that is what was missing."""

    def holds_body(self, change: int) -> None:
        """Count requests of which the body is read or stored: 1 more, or 1 less (-1)."""

    def uses_connection(self, change: int) -> None:
        """Count connections to the database that are in use: 1 more, or 1 less (-1)."""

    def rolls_up(self, behind: int) -> None:
        """Note how many ids of events are not rolled up yet, in the process that does it."""

    def looked_up(self, *, known: bool) -> None:
        """Count a key of a request; `known` if the database was not asked."""


class Metered:
    """An ASGI application whose answers are counted, by route and status."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 500, clock.monotonic()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            self._meter.answered(_route_of(scope), status, clock.monotonic() - begun)


def _route_of(scope: Scope) -> str:
    """Return the pattern of a request's path, never the path itself, which may name a session."""
    if scope["path"] == "/ui" or scope["path"].startswith("/ui/"):
        return "/ui/"
    return _CONVERTER.sub("", getattr(scope.get("route"), "path", "other"))
