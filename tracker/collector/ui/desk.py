"""`Desk`: who may see what, and how many look at once.

A page is a query like any other: it waits for its turn at the gates of the collector, so that it
never takes a connection or a thread that a batch needs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from tracker.collector.tables import MAX_ID_LENGTH
from tracker.collector.ui.client_source import ClientSource, EveryClient, is_known
from tracker.pages.site import Elsewhere
from tracker.pages.source import Choice, Entry
from tracker.pages.view import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from tracker.collector.access import Parts
    from tracker.collector.ui.completeness import Completeness
    from tracker.collector.ui.sessions import Sessions, Visitor

NAME = "client"
"""Of the client in an address."""
CLIENTS = (Entry("clients", "Clients"), Entry("keys", "API keys"))
"""The pages for operators alone."""


class SignedOutError(Exception):
    """Nobody is signed in."""


class Desk:
    """The entrance to all pages but those for signing in.

    Args:
        parts: What the collector's routes use.
        sessions: Who is signed in.
        completeness: What is known of the outboxes.
    """

    def __init__(self, parts: Parts, sessions: Sessions, completeness: Completeness) -> None:
        self.parts = parts
        self.sessions = sessions
        self._completeness = completeness

    def guarded(self, route: Route) -> Route:
        """Return a route that is open only to those who are signed in, when it is their turn."""
        answer = route.endpoint

        async def endpoint(request: Request) -> Response:
            visitor = await self.admit(request)
            if inspect.iscoroutinefunction(answer):  # it waits for a form, and reads nothing
                answered: Response = await answer(request)
                return answered

            def run() -> Response:
                if _is_use(request):
                    self.sessions.note_use(visitor)
                page: Response = answer(request)
                return page

            return await self.parts.read(visitor.whose, run)

        return Route(route.path, endpoint, methods=sorted(route.methods or ()))

    async def admit(self, request: Request) -> Visitor:
        """Return who is signed in, and remember it with the request.

        Raises:
            SignedOutError: if nobody is.
        """
        visitor = None
        secret = request.cookies.get(cookie_name(request), "")
        if secret:
            async with self.parts.lookups.passing(""):
                visitor = await run_in_threadpool(self.sessions.find, secret)
        if visitor is None:
            raise SignedOutError
        request.state.visitor = visitor
        return visitor

    def choose(self, request: Request) -> Choice:
        """Return the client that a request is about.

        Raises:
            Elsewhere: if an operator names none.
            HTTPException: if it may not be read, or nothing is known of it.
        """
        own, named = visitor_of(request).key.client_id, text_of(request, NAME)
        if own is not None and named not in (None, own):
            raise HTTPException(403, "This key opens the pages of another client alone.")
        client_id = own or named
        if client_id is None:
            raise Elsewhere("/clients")
        if len(client_id) > MAX_ID_LENGTH or not self._is_known(client_id):
            raise HTTPException(404, "Nothing is known of a client of that name.")
        source = ClientSource(self.parts.store, client_id, self._completeness)
        return Choice(source, {NAME: client_id})

    def choose_all(self, request: Request) -> Choice:
        """Return all clients together.

        Raises:
            HTTPException: if the key is not an operator's.
        """
        check_operator(request)
        return Choice(EveryClient(self.parts.store, self._completeness))

    def home(self, request: Request) -> Sequence[Entry]:
        """Return the pages that are of no single client."""
        visitor = getattr(request.state, "visitor", None)
        return CLIENTS if visitor is not None and visitor.key.operator else ()

    def csrf(self, request: Request) -> str:
        """Return what every form of this visitor has to carry."""
        visitor: Visitor | None = getattr(request.state, "visitor", None)
        return "" if visitor is None else visitor.csrf

    def _is_known(self, client_id: str) -> bool:
        with self.parts.store.reading() as connection:
            return is_known(connection, client_id)


def visitor_of(request: Request) -> Visitor:
    """Return who is signed in, on a route that is guarded."""
    visitor: Visitor = request.state.visitor
    return visitor


def check_operator(request: Request) -> None:
    """Refuse a request with a client's key.

    Raises:
        HTTPException: if it has one.
    """
    if not visitor_of(request).key.operator:
        raise HTTPException(403, "Only an operator's key opens this page.")


def cookie_name(request: Request) -> str:
    """Return the name of the cookie: ports of a host share their cookies, so it has the port."""
    _, _, port = request.headers.get("host", "").rpartition(":")
    return f"tracker-ui-{port}" if port.isdigit() else "tracker-ui"


def _is_use(request: Request) -> bool:
    """Return False if a page asks for itself: an unattended one must not stay open by that."""
    return request.headers.get("sec-fetch-dest", "document") != "empty"
