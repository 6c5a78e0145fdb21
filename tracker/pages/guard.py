"""`Guard`: refuses what no page of this site asks for, before anything else looks at it.

A page of any site can make the browser ask 127.0.0.1, and a name that leads there (DNS rebinding)
makes that site's script one of the same origin. So the name in ``Host`` has to be one of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from tracker.pages.headers import secure

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCHEMES = ("http", "https")


class Guard:
    """Lets pass only requests for a known host, from this site's own pages or from nowhere.

    Args:
        app: The application.
        hosts: What ``Host`` may be, each with its port unless that is the scheme's own.
        entrances: The paths that a page of another site may link to.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], entrances: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._entrances = frozenset(entrances)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            return

        async def secured(message: Message) -> None:
            secure(message)
            await send(message)

        refusal = self.refusal(scope)
        app = self._app if refusal is None else PlainTextResponse(*_reversed(refusal))
        await app(scope, receive, secured)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the reason if a request has to be refused."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 421, "This address is not served here.\n"
        origins = headers.getlist("origin")
        if any(origin not in [f"{each}://{hosts[0]}" for each in _SCHEMES] for origin in origins):
            return 403, "This came from a page of another site.\n"
        if scope["path"] in self._entrances and scope["method"] != "POST":
            return None
        if not _is_own(headers, scope["method"]):
            return 403, "This came from a page of another site. Type the address instead.\n"
        return None


def _is_own(headers: Headers, method: str) -> bool:
    """Return True unless the browser says that a page of another site asked.

    Another port of this host is the same site for a browser: a link from there may lead here.
    """
    site = headers.get("sec-fetch-site", "none")
    is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return site in ("same-origin", "none") or (site == "same-site" and is_link)


def _reversed(refusal: tuple[int, str]) -> tuple[str, int]:
    status, reason = refusal
    return reason, status
