"""No page of another site, and no name that leads here, gets anything from the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker.pages.headers import HEADERS

if TYPE_CHECKING:
    from tests.support.dashboard import RunningDashboard

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_names_of_loopback_are_served(board: RunningDashboard, name: str) -> None:
    """Whichever of them a person types."""
    assert board.get("/events", ("Host", f"{name}:{board.port}")).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example",
             "LOCALHOST.:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/events", "/static/app.css", "/open", "/nothing"])
def test_another_name_that_leads_here_is_refused(
    board: RunningDashboard, host: str, path: str
) -> None:
    """A rebound name would make another site's script one of ours; the token is not asked first."""
    answer = board.get(path, ("Host", host.format(port=board.port)))
    assert answer.status == 421
    assert "order-7" not in answer.text


def test_two_names_are_refused(board: RunningDashboard) -> None:
    """A server and a proxy might not agree on which counts; h11 refuses it, or the guard does."""
    own = f"127.0.0.1:{board.port}"
    assert board.get("/events", ("Host", own), ("Host", own)).status in (400, 421)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_origin_is_refused(board: RunningDashboard, origin: str, method: str) -> None:
    """Whatever else the request carries."""
    given = (("Origin", origin), ("Sec-Fetch-Site", "same-origin"))
    assert board.ask(method, "/verify" if method == "POST" else "/", given).status == 403


def test_its_own_origin_is_not(board: RunningDashboard) -> None:
    """Browsers send it with each form."""
    answer = board.get("/events", ("Origin", f"http://127.0.0.1:{board.port}"))
    assert answer.status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
@pytest.mark.parametrize("path", ["/", "/conversation.json?id=order-7", "/static/app.css"])
def test_what_another_site_asks_for_is_refused(
    board: RunningDashboard, site: str, path: str
) -> None:
    """Even with the cookie, should a browser send it."""
    assert board.get(path, ("Sec-Fetch-Site", site)).status == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_its_own_page_or_a_person_asks_for_is_served(
    board: RunningDashboard, site: str
) -> None:
    """An address that was typed comes from nowhere."""
    assert board.get("/events", ("Sec-Fetch-Site", site)).status == 200


def test_the_link_may_stand_on_another_site(board: RunningDashboard) -> None:
    """A terminal in the browser, or a chat, is one."""
    answer = board.get(f"/open?token={board.token.link}", ("Sec-Fetch-Site", "cross-site"))
    assert answer.status == 200


def test_a_link_from_another_port_of_this_host_is_followed(board: RunningDashboard) -> None:
    """For a browser it is the same site; what that page would load by itself is refused."""
    given = (("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate"))
    assert board.get("/events", *given).status == 200
    assert board.post("/verify", *given, csrf=board.csrf()).status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(board: RunningDashboard, method: str) -> None:
    """A preflight gets no leave either."""
    answer = board.ask(method, "/events", ())
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/events", (), 200),
        ("/static/app.css", (), 404),
        ("/nothing", (), 404),
        ("/conversation", (), 400),
        ("/open", (), 403),
        ("/events", (("Host", "evil.example"),), 421),
        ("/events", (("Origin", "null"),), 403),
        ("/verify", (), 405),
    ],
)
def test_every_answer_has_the_headers(
    board: RunningDashboard, path: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    """Errors too: their text may hold what was asked for."""
    answer = board.get(path, *headers)
    assert answer.status == status
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


def test_an_answer_without_a_body_has_them_too(board: RunningDashboard) -> None:
    """304 comes every two seconds."""
    tag = board.get("/events").headers["etag"]
    answer = board.get("/events", ("If-None-Match", tag))
    assert answer.status == 304
    assert {name.lower() for name in HEADERS} <= set(answer.headers)
    assert answer.headers["cache-control"] == "no-store"
