"""A dashboard that runs in this process, and a browser's requests to it over real HTTP."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tracker.dashboard.app import Dashboard
from tracker.dashboard.folder import OneOutbox
from tracker.dashboard.health import Examination
from tracker.dashboard.outbox_source import OutboxSource
from tracker.dashboard.server import ADDRESS, listening, server_of
from tracker.dashboard.token import Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGES = (
    "/", "/conversations", "/search", "/delivery", "/usage", "/agents", "/scores", "/events",
    "/health",
)  # fmt: skip
"""The pages that need nothing in their query."""


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class RunningDashboard:
    """A dashboard, and the cookie by which this browser is known to it."""

    port: int
    token: Token
    dashboard: Dashboard
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def link(self) -> str:
        return f"http://{ADDRESS}:{self.port}/open?token={self.token.link}"

    def sign_in(self) -> Answer:
        answer = self.get(f"/open?token={self.token.link}")
        name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
        self.cookies[name] = value
        return answer

    def get(self, path: str, *headers: tuple[str, str], **query: str) -> Answer:
        return self.ask("GET", path + (f"?{urlencode(query)}" if query else ""), headers)

    def settled(self, path: str) -> Answer:
        """Return a page once all its figures are there."""
        while 'data-awaited=""' not in (answer := self.get(path)).text:
            assert answer.status == 200
        return answer

    def post(self, path: str, *headers: tuple[str, str], **form: str) -> Answer:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return self.ask("POST", path, (kind, *headers), urlencode(form).encode())

    def ask(
        self, method: str, path: str, headers: tuple[tuple[str, str], ...], body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = list(headers)
        if not any(name.lower() == "host" for name, _ in given):
            given.append(("Host", f"{ADDRESS}:{self.port}"))
        if self.cookies:
            given.append(("Cookie", "; ".join(f"{n}={v}" for n, v in self.cookies.items())))
        if body:
            given.append(("Content-Length", str(len(body))))
        for name, value in given:
            if value:  # a Host that is left out
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return Answer(answer.status, found, text)

    def csrf(self) -> str:
        """Return the value that forms carry."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/events").text)
        assert found is not None
        return found[1]


@contextmanager
def running(
    shown: OneOutbox | Path, examination: Examination | None = None, *, signed_in: bool = True
) -> Iterator[RunningDashboard]:
    """Run a dashboard over an outbox, or over a folder of them."""
    outboxes = shown if isinstance(shown, OneOutbox) else OneOutbox(OutboxSource(shown, ""))
    ready = threading.Event()
    with listening(0) as listener:
        port = listener.getsockname()[1]
        token = Token(port)
        made = Dashboard(outboxes, token, port, examination or Examination(lambda *_: ()))
        server = server_of(made.app, ready.set)
        options: dict[str, Any] = {"kwargs": {"sockets": [listener]}, "daemon": True}
        thread = threading.Thread(target=server.run, **options)
        thread.start()
        try:
            assert ready.wait(10)
            found = RunningDashboard(port, token, made)
            if signed_in:
                found.sign_in()
            yield found
        finally:
            server.should_exit = True
            thread.join()
            made.close()
