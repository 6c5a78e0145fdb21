"""Signing in with an API key, and out."""

from __future__ import annotations

import hmac
import math
import secrets
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tracker.collector.ui.attempts import Attempts, address_of
from tracker.collector.ui.desk import cookie_name
from tracker.collector.ui.sessions import MOST_MS
from tracker.pages.answers import bare, html_response
from tracker.pages.forms import fields, posted
from tracker.pages.templates import render
from tracker.pages.view import Page

if TYPE_CHECKING:
    from starlette.requests import Request

    from tracker.collector.keys import ApiKey
    from tracker.collector.ui.desk import Desk
    from tracker.pages.site import Site

LOGIN = "/login"
_FORM_SECONDS = 3_600
_MOST_KEY = 512


class SignIn:
    """The routes.

    Args:
        site: The site.
        desk: Who is signed in.
        attempts: Who has failed to.
    """

    def __init__(self, site: Site, desk: Desk, attempts: Attempts) -> None:
        self._site = site
        self._desk = desk
        self._attempts = attempts

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(LOGIN, self.show),
            Route(LOGIN, self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Answer with the form."""
        return self._form(request, "")

    async def sign_in(self, request: Request) -> Response:
        """Check a key, and begin a session."""
        form = await fields(request)
        expected = request.cookies.get(_form_cookie(request), "")
        if not expected or not _same(expected, form.get("csrf", "")):
            return self._form(request, "That form was too old. Please send it again.", 403)
        address = address_of(request)
        wait = self._attempts.begin(address)
        if wait:
            seconds = math.ceil(wait)
            again = f"Too many attempts from this address. Try again in {seconds} s."
            return self._form(request, again, 429, {"Retry-After": str(seconds)})
        key = await self._find(form.get("key", "").strip())
        if key is None:
            return self._form(request, "This key is unknown, or it was revoked.", 403)
        if key.has_expired():
            return self._form(request, "This key has expired.", 403)
        if not key.may_read:
            return self._form(request, "This key only sends; pages need the scope read.", 403)
        self._desk.parts.uses.note(key.id)
        self._attempts.succeeded(address)
        async with self._desk.parts.reads.passing("signing in"):
            secret = await run_in_threadpool(self._desk.sessions.begin, key)
        answer = RedirectResponse(f"{self._site.base}/", 303)
        self._set(answer, request, cookie_name(request), secret, MOST_MS // 1000)
        self._set(answer, request, _form_cookie(request), "", 0)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End a session."""
        visitor = await self._desk.admit(request)
        await posted(request, self._site)
        async with self._desk.parts.reads.passing(visitor.whose):
            await run_in_threadpool(self._desk.sessions.end, visitor)
        answer = RedirectResponse(self._site.base + LOGIN, 303)
        self._set(answer, request, cookie_name(request), "", 0)
        return answer

    async def _find(self, key: str) -> ApiKey | None:
        if not key or len(key) > _MOST_KEY:
            return None
        async with self._desk.parts.lookups.passing(""):
            return await run_in_threadpool(self._desk.parts.keys.find, key)

    def _form(
        self,
        request: Request,
        problem: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Return the form, whose hidden value its cookie has too: no other site can send both."""
        csrf = request.cookies.get(_form_cookie(request)) or secrets.token_urlsafe(32)
        page = Page("login.html", "Sign in", {"problem": problem, "form_csrf": csrf}, status)
        html = render(page.template, bare(request, self._site, page))
        answer = html_response(html, status, headers)
        self._set(answer, request, _form_cookie(request), csrf, _FORM_SECONDS)
        return answer

    def _set(self, answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
        """Set a cookie; with 0 seconds the browser forgets it."""
        answer.set_cookie(
            name,
            value,
            seconds,
            path=self._site.base,
            secure=is_https(request),
            httponly=True,
            samesite="strict",
        )


def is_https(request: Request) -> bool:
    """Return True if the browser asked by https, as it says itself or a proxy does."""
    origin = request.headers.get("origin", "")
    said = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, said) or origin.startswith("https://")


def _form_cookie(request: Request) -> str:
    return f"{cookie_name(request)}-form"


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
