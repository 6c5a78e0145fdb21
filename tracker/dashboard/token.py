"""`Token`: who may see the dashboard, of all who can reach the port.

The link that the command prints has one secret, and the browser gets another: the link may be in a
history or in the list of processes, and the cookie is what opens the pages.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from tracker.pages.answers import bare, html_response
from tracker.pages.templates import render
from tracker.pages.view import Page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tracker.pages.site import Site

_BYTES = 32


class Token:
    """The secrets of one run of the dashboard.

    Args:
        port: The port: cookies are shared among the ports of a host, so its name has it.
    """

    def __init__(self, port: int) -> None:
        self.link = secrets.token_urlsafe(_BYTES)
        self._cookie = secrets.token_urlsafe(_BYTES)
        self._form = secrets.token_urlsafe(_BYTES)
        self._name = f"tracker-dashboard-{port}"

    def is_signed_in(self, request: Request) -> bool:
        """Return True if a request carries the cookie."""
        return _same(request.cookies.get(self._name, ""), self._cookie)

    def check(self, request: Request) -> None:
        """Refuse a request without the cookie.

        Raises:
            HTTPException: if it has none, or a wrong one.
        """
        if not self.is_signed_in(request):
            raise HTTPException(
                403, "Open the link that tracker-sync dashboard printed. Each start has a new one."
            )

    def csrf(self, request: Request) -> str:
        """Return what a form of this visitor carries; nothing for those without the cookie."""
        return self._form if self.is_signed_in(request) else ""

    def open(self, request: Request, site: Site) -> Response:
        """Answer to the link: set the cookie, and lead on by a page.

        A redirect would still count as coming from another site if the link was on one's page,
        and the first page would refuse it.

        Raises:
            HTTPException: if the token is wrong.
        """
        if not _same(request.query_params.get("token", ""), self.link):
            raise HTTPException(
                403, "This link is not of this dashboard: each start has a new one."
            )
        page = Page("open.html", "Opening", {})
        answer = html_response(render(page.template, bare(request, site, page)))
        answer.set_cookie(self._name, self._cookie, path="/", httponly=True, samesite="strict")
        return answer


def _same(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
