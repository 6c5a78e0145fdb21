"""`dashboard_app`: the pages of outboxes as an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from tracker.dashboard.delivery import delivery
from tracker.dashboard.folder import EveryOutbox, OneOutbox
from tracker.dashboard.health import health, verify_route
from tracker.pages.answers import bare, error_handlers, html_response, page_route
from tracker.pages.guard import Guard
from tracker.pages.routes import page_routes
from tracker.pages.site import Site
from tracker.pages.templates import render
from tracker.pages.view import Page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from tracker.dashboard.health import Examination
    from tracker.dashboard.token import Token
    from tracker.pages.source import Choice

_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Dashboard:
    """The application, and what has to be closed after it.

    Attributes:
        app: The application.
        routes: Its routes.
        site: What is around its pages.

    Args:
        outboxes: What it shows.
        token: Who may see it.
        port: The port that it listens on.
        examination: The checks and the keys for the page on health.
    """

    def __init__(
        self, outboxes: OneOutbox, token: Token, port: int, examination: Examination
    ) -> None:
        def choose(request: Request) -> Choice:
            token.check(request)
            return outboxes.choose(request)

        self._outboxes, self._token = outboxes, token
        self.site = Site("", "tracker", choose, token.csrf, outboxes.home)
        self.routes = [
            Route("/open", self._open),
            Route("/outboxes", self._list),
            *page_routes(self.site),
            page_route(self.site, "delivery", delivery),
            page_route(self.site, "health", health(examination)),
            verify_route(self.site, examination),
        ]
        app = Starlette(routes=self.routes, exception_handlers=error_handlers(self.site))
        self.app: ASGIApp = Guard(app, [f"{name}:{port}" for name in _NAMES], ["/open"])

    def close(self) -> None:
        """End the threads that work figures out."""
        self.site.parts.close()

    def _open(self, request: Request) -> Response:
        return self._token.open(request, self.site)

    def _list(self, request: Request) -> Response:
        self._token.check(request)
        listed = self._outboxes.listed() if isinstance(self._outboxes, EveryOutbox) else []
        page = Page("outboxes.html", "All outboxes", {"listed": listed})
        return html_response(render(page.template, bare(request, self.site, page)))
