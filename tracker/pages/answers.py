"""From a page function to an answer: the tag, the frame around the page, and what can go wrong."""

from __future__ import annotations

import hashlib
import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tracker.errors import ValidationError
from tracker.pages.site import Elsewhere
from tracker.pages.source import Choice, UnreadableError
from tracker.pages.templates import render
from tracker.pages.view import Page, View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection
    from starlette.requests import Request

    from tracker.pages.site import Site

    PageFunction = Callable[[View], Page]

THEMES = ("light", "dark")
_NO_PAGE = "There is no page at this address."
_MINUTE = 60


def page_route(site: Site, path: str, make: PageFunction) -> Route:
    """Return the route of a page of a source. `make` runs in a worker thread.

    The page carries its own tag, made before it is read: what changes meanwhile has another one.
    """

    def endpoint(request: Request) -> Response:
        choice = None
        try:
            choice = site.choose(request)
            return choice.source.read(
                lambda connection: _answer(request, site, choice, make, connection)
            )
        except Elsewhere as found:
            return RedirectResponse(site.base + found.path, 303)
        except UnreadableError as error:
            return _unreadable(request, site, choice, error)
        except ValidationError as error:
            raise HTTPException(400, str(error)) from error

    return Route(f"/{path}", endpoint)


def json_route(site: Site, path: str, make: Callable[[View], Any]) -> Route:
    """Return the route of what a page shows, as JSON."""

    def endpoint(request: Request) -> Response:
        choice = site.choose(request)
        try:
            found = choice.source.read(
                lambda connection: make(View(request, site, choice, connection))
            )
        except UnreadableError as error:
            raise HTTPException(503, error.reason) from error
        # ASCII, because texts of events may hold half of a surrogate pair.
        return Response(json.dumps(found, default=repr, indent=2), media_type="application/json")

    return Route(f"/{path}", endpoint)


def _answer(
    request: Request, site: Site, choice: Choice, make: PageFunction, connection: Connection
) -> Response:
    stamp = choice.source.stamp(connection)
    tag = _tag(request, site, choice, stamp)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    view = View(request, site, choice, connection, stamp)
    page = make(view)
    frame = _frame(request, site, page, choice)
    frame |= {"pages": choice.source.menu(connection), "view": view, "tag": tag}
    html = render(page.template, {**frame, "awaited": _awaited(view), **page.values})
    return html_response(html, page.status, {"ETag": tag})


def _awaited(view: View) -> str:
    """Return how a page is to ask again: soon, or at least without its tag."""
    return "missing" if view.missing else "old" if view.old else ""


def _tag(request: Request, site: Site, choice: Choice, stamp: str) -> str:
    source = choice.source
    parts = (
        stamp,
        site.parts.version(source.key),
        int(time.time()) // _MINUTE,  # times such as "3 min ago" are on every page
        str(request.url),
        theme_of(request),
        site.csrf(request),
    )
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:24]}"'


def _unreadable(
    request: Request, site: Site, choice: Choice | None, error: UnreadableError
) -> Response:
    page = Page("unreadable.html", "Not readable", {"error": error}, 503)
    return html_response(render(page.template, bare(request, site, page, choice)), 503)


def bare(request: Request, site: Site, page: Page, choice: Choice | None = None) -> dict[str, Any]:
    """Return the values of a page that is of no source, or whose source cannot be read."""
    frame = _frame(request, site, page, choice)
    return {**frame, "view": None, "tag": "", "awaited": "", **page.values}


def _frame(request: Request, site: Site, page: Page, choice: Choice | None) -> dict[str, Any]:
    path = request.url.path
    return {
        "title": page.title,
        "site": site,
        "source": None if choice is None else choice.source,
        "page_name": path.removeprefix(f"{site.base}/"),
        "page_address": path + (f"?{request.url.query}" if request.url.query else ""),
        "home": site.home(request),
        "pages": (),
        "theme": theme_of(request),
        "csrf": site.csrf(request),
    }


def theme_of(request: Request) -> str:
    """Return ``"light"`` or ``"dark"`` if the visitor chose it; otherwise an empty text."""
    value = request.cookies.get("theme", "")
    return value if value in THEMES else ""


def html_response(
    html: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with a page."""
    content = html.encode("utf-8", "replace")  # no text of an event has a surrogate left in it
    return Response(content, status, headers, media_type="text/html; charset=utf-8")


def error_handlers(site: Site) -> dict[Any, Callable[[Request, Exception], Response]]:
    """Return what answers for the errors of a site's routes."""

    def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        said = HTTPStatus(error.status_code).phrase
        detail = _NO_PAGE if error.detail == HTTPStatus.NOT_FOUND.phrase else error.detail
        page = Page("error.html", said.capitalize(), {"detail": detail}, error.status_code)
        html = render(page.template, bare(request, site, page))
        return html_response(html, error.status_code, error.headers)

    def failed(_request: Request, _error: Exception) -> Response:
        # No template: one may be what failed.
        detail = "Something failed here that should not. The server's log says what.\n"
        return PlainTextResponse(detail, 500)

    return {HTTPException: refused, 500: failed}
