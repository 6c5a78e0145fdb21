"""The page on health: what `doctor` checks without the network, and `verify` on a button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tracker.dashboard.outbox_source import outbox_of
from tracker.outbox import verify
from tracker.pages.forms import posted
from tracker.pages.parts import Part
from tracker.pages.view import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection
    from starlette.requests import Request

    from tracker.cli.check import Check
    from tracker.pages.site import Site
    from tracker.pages.view import View

_VERIFY = "verify"


@dataclass(frozen=True)
class Examination:
    """What the command gives the page.

    Attributes:
        checks: Returns the checks of an outbox, given its path and a connection to it.
        keys: The chain keys that are known.
    """

    checks: Callable[[Path, Connection], Sequence[Check]]
    keys: Sequence[bytes] = ()


def health(examination: Examination) -> Callable[[View], Page]:
    """Return the page function."""

    def page(view: View) -> Page:
        source = outbox_of(view)
        checks = view.part("health", lambda connection: examination.checks(source.path, connection))
        verified = view.site.parts.known(source.key, _VERIFY)
        if verified is not None and not verified.ready:
            view.missing = True
        return Page(
            "health.html",
            "Health",
            {
                "checks": checks.value,
                "verified": verified or Part(None, ready=False, awaited=False),
                "command": source.command,
            },
        )

    return page


def verify_route(site: Site, examination: Examination) -> Route:
    """Return the route that starts a check of the whole outbox."""

    async def start(request: Request) -> Response:
        await posted(request, site)
        choice = await run_in_threadpool(site.choose, request)
        source = choice.source
        site.parts.forget(source.key, _VERIFY)
        site.parts.get(
            source.key,
            _VERIFY,
            lambda: source.read(lambda connection: verify.verify(connection, examination.keys)),
            0,
        )
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{site.base}/health{query}", 303)

    return Route("/verify", start, methods=["POST"])
