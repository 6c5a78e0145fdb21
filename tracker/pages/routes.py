"""The routes that both products have, below the base of their site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tracker.pages import events_page, transcript
from tracker.pages.agents_page import agents_page
from tracker.pages.answers import THEMES, json_route, page_route
from tracker.pages.forms import posted
from tracker.pages.listing import conversations
from tracker.pages.overview import overview
from tracker.pages.scores_page import scores_page
from tracker.pages.search_page import search_page
from tracker.pages.static_files import serve
from tracker.pages.trace import trace
from tracker.pages.usage_page import usage_page

if TYPE_CHECKING:
    from starlette.requests import Request

    from tracker.pages.site import Site

_YEAR_SECONDS = 365 * 86_400


def page_routes(site: Site) -> list[Route]:
    """Return the routes of the pages about a source, of the files, and of the theme."""
    return [
        page_route(site, "", overview),
        page_route(site, "conversations", conversations),
        page_route(site, "conversation", transcript.transcript),
        json_route(site, "conversation.json", transcript.as_json),
        page_route(site, "trace", trace),
        page_route(site, "search", search_page),
        page_route(site, "usage", usage_page),
        page_route(site, "agents", agents_page),
        page_route(site, "scores", scores_page),
        page_route(site, "events", events_page.events_page),
        page_route(site, "event", events_page.event_page),
        json_route(site, "event.json", events_page.as_json),
        Route("/static/{file}", serve),
        theme_route(site),
    ]


def theme_route(site: Site) -> Route:
    """Return the route by which a visitor chooses light or dark colours, or the system's."""

    async def choose(request: Request) -> Response:
        form = await posted(request, site)
        answer = RedirectResponse(_local(form.get("back", ""), site), 303)
        theme = form.get("theme", "")
        if theme in THEMES:
            answer.set_cookie(
                "theme",
                theme,
                _YEAR_SECONDS,
                path=f"{site.base}/",
                httponly=True,
                samesite="strict",
            )
        else:
            answer.delete_cookie("theme", path=f"{site.base}/")
        return answer

    return Route("/theme", choose, methods=["POST"])


def _local(path: str, site: Site) -> str:
    """Return a path of this site: the given one, or its first page."""
    home = f"{site.base}/"
    own = path.startswith(home) and not path.startswith("//") and "\\" not in path
    return path if own and path.isprintable() else home
