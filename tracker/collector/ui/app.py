"""`UI`: the pages below ``/ui/`` as an ASGI application, in front of the collector's routes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from tracker.collector import accounts
from tracker.collector.database import StorageError
from tracker.collector.refusal import RefusedError
from tracker.collector.ui import clients_page
from tracker.collector.ui.attempts import Attempts
from tracker.collector.ui.completeness import Completeness, Figures
from tracker.collector.ui.desk import Desk, SignedOutError, visitor_of
from tracker.collector.ui.keys_page import keys
from tracker.collector.ui.lists import erasures, rejections
from tracker.collector.ui.sessions import Sessions
from tracker.collector.ui.sign_in import LOGIN, SignIn
from tracker.pages.answers import bare, error_handlers, html_response, json_route, page_route
from tracker.pages.forms import posted
from tracker.pages.guard import Guard
from tracker.pages.routes import page_routes
from tracker.pages.site import Elsewhere, Site
from tracker.pages.templates import render
from tracker.pages.view import Page

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tracker.collector.access import Parts

logger = logging.getLogger(__name__)

BASE = "/ui"
_OPEN = ("/static/{file}",)
"""What needs nobody to be signed in, for it holds no data."""


class UI:
    """Answers for all paths below ``/ui``, and leaves every other one to the collector's routes.

    Args:
        app: The collector's routes.
        parts: What they use.
        hosts: What ``Host`` may be in a request for a page.
    """

    def __init__(self, app: ASGIApp, parts: Parts, hosts: Collection[str]) -> None:
        self._app = app
        figures = Figures()
        self._completeness = Completeness(parts.store, figures)
        self._desk = desk = Desk(parts, Sessions(parts.store), self._completeness)
        self._site = Site(
            BASE, "tracker", desk.choose, desk.csrf, desk.home, can_leave=True, parts=figures
        )
        self.pages = Starlette(
            routes=[Mount(BASE, routes=self._routes()), Route(BASE, _to_base)],
            exception_handlers={
                **error_handlers(self._site),
                SignedOutError: self._signed_out,
                Elsewhere: self._elsewhere,
                RefusedError: self._refused,
                StorageError: self._failed,
            },
        )
        self._guard = Guard(self.pages, hosts, [BASE + LOGIN])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered."""
        path = scope.get("path", "")
        mine = scope["type"] == "http" and (path == BASE or path.startswith(f"{BASE}/"))
        await (self._guard if mine else self._app)(scope, receive, send)

    def _routes(self) -> list[Route]:
        desk, site = self._desk, self._site
        of_all = replace(site, choose=desk.choose_all)
        behind = [
            *page_routes(site),
            page_route(site, "rejections", rejections),
            page_route(site, "erasures", erasures),
            page_route(of_all, "clients", clients_page.clients),
            json_route(of_all, "clients.json", clients_page.as_json),
            page_route(of_all, "keys", keys),
            Route("/verify", self._verify, methods=["POST"]),
        ]
        return [
            *SignIn(site, desk, Attempts()).routes(),
            *(each if each.path in _OPEN else desk.guarded(each) for each in behind),
        ]

    async def _verify(self, request: Request) -> Response:
        form = await posted(request, self._site)
        outbox_id, store = form.get("outbox", ""), self._desk.parts.store

        def start() -> Response:
            client_id = self._desk.choose(request).source.key
            with store.reading() as connection:
                if not accounts.is_known(connection, client_id, outbox_id):
                    raise HTTPException(404, "Nothing is known of an outbox of that id.")
            self._completeness.check_whole(client_id, outbox_id)
            return RedirectResponse(f"{BASE}/?{request.url.query}", 303)

        return await self._desk.parts.read(visitor_of(request).whose, start)

    def _signed_out(self, request: Request, _error: Exception) -> Response:
        """Lead to the form; a script, which would take that for a page, gets 401."""
        if request.headers.get("sec-fetch-dest") == "empty" or request.url.path.endswith(".json"):
            return self._error(request, 401, "You are signed out.")
        return RedirectResponse(BASE + LOGIN, 303)

    def _elsewhere(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, Elsewhere)  # noqa: S101 - Starlette dispatches by this class
        return RedirectResponse(BASE + error.path, 303)

    def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101 - as above
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return self._error(request, error.status, error.message, headers)

    def _failed(self, request: Request, error: Exception) -> Response:
        logger.error("storage is unavailable: %s", error)
        return self._error(request, 503, "The collector's database failed. Its log says why.")

    def _error(
        self, request: Request, status: int, detail: str, headers: dict[str, str] | None = None
    ) -> Response:
        page = Page("error.html", f"{status}", {"detail": detail}, status)
        html = render(page.template, bare(request, self._site, page))
        return html_response(html, status, headers)


def _to_base(_request: Request) -> Response:
    return RedirectResponse(f"{BASE}/", 308)
