"""A person with a browser at a collector's pages, over real HTTP."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.support.dashboard import Answer

if TYPE_CHECKING:
    from tests.support.collector import CollectorProcess

SCRIPT = ("Sec-Fetch-Dest", "empty")
"""What a browser says when a page's script asks."""


@dataclass
class TeamVisitor:
    """Sends requests with the cookies that it was given.

    Attributes:
        port: The collector's port.
        cookies: The cookies, by name.
        told: The headers that set or removed cookies, of the last answer.
    """

    port: int
    cookies: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, collector: CollectorProcess, key: str = "") -> TeamVisitor:
        """Return a visitor of a collector, signed in if a key is given."""
        found = cls(collector.port)
        if key:
            assert found.sign_in(key).status == 303
        return found

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def secret(self) -> str:
        """What the cookie of the session holds."""
        return self.cookies[f"tracker-ui-{self.port}"]

    def sign_in(self, key: str, *headers: tuple[str, str]) -> Answer:
        """Send the form with a key, as it was shown."""
        found = self.get("/ui/login", *headers)
        return self.post("/ui/login", *headers, key=key, csrf=csrf_in(found))

    def csrf(self) -> str:
        """Return the value that forms carry."""
        page = self.get("/ui/clients")
        return csrf_in(page if page.status == 200 else self.get("/ui/"))

    def get(self, path: str, *headers: tuple[str, str], **query: str) -> Answer:
        return self.ask("GET", path + (f"?{urlencode(query)}" if query else ""), headers)

    def post(self, path: str, *headers: tuple[str, str], **form: str) -> Answer:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return self.ask("POST", path, (kind, *headers), urlencode(form).encode())

    def ask(
        self, method: str, path: str, headers: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = list(headers)
        if not any(name.lower() == "host" for name, _ in given):
            given.append(("Host", self.host))
        if self.cookies:
            given.append(("Cookie", "; ".join(f"{n}={v}" for n, v in self.cookies.items())))
        given.append(("Content-Length", str(len(body))))
        for name, value in given:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        text = answer.read().decode()
        self.told = answer.headers.get_all("set-cookie", [])
        for cookie in self.told:
            self._keep(cookie)
        found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return Answer(answer.status, found, text)

    def _keep(self, cookie: str) -> None:
        name, _, value = cookie.partition(";")[0].partition("=")
        if "Max-Age=0" in cookie:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


def csrf_in(answer: Answer) -> str:
    """Return the value that the forms of a page carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    assert found is not None, f"{answer.status}: {answer.text}"
    return found[1]
