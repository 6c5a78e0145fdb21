"""Only who has the link sees the pages, whoever else can reach the port."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.dashboard import PAGES
from tracker.pages.static_files import HASHED

if TYPE_CHECKING:
    from tests.support.dashboard import RunningDashboard

WITH_DATA = (
    *PAGES,
    "/outboxes",
    "/conversation?id=order-7",
    "/conversation.json?id=order-7",
    "/event?id=1",
    "/event.json?id=1",
    "/trace?id=1",
    "/search?text=order",
)


@pytest.mark.parametrize("path", WITH_DATA)
def test_nothing_is_shown_without_the_cookie(stranger: RunningDashboard, path: str) -> None:
    """On no route: not even whether an id is stored."""
    answer = stranger.get(path)
    assert answer.status == 403
    for told in ("order-7", "agent_123", "test-client", 'name="csrf"'):
        assert told not in answer.text


def test_these_are_all_routes(board: RunningDashboard) -> None:
    """A new one has to be in the list above, or to be one of those that show no data."""
    site_routes = {path.partition("?")[0] for path in WITH_DATA}
    app = board.dashboard.routes
    assert {route.path for route in app} == site_routes | {
        "/open",
        "/static/{file}",
        "/theme",
        "/verify",
    }


@pytest.mark.parametrize("path", ["/theme", "/verify"])
def test_nothing_is_started_without_the_cookie(stranger: RunningDashboard, path: str) -> None:
    """Nor with a guess at what forms carry."""
    assert stranger.post(path).status == 403
    assert stranger.post(path, csrf="").status == 403
    assert stranger.post(path, csrf="guess").status == 403


@pytest.mark.parametrize("path", ["/theme", "/verify"])
def test_a_form_without_its_value_is_refused(board: RunningDashboard, path: str) -> None:
    """The cookie alone starts nothing."""
    assert board.post(path).status == 403
    assert board.post(path, csrf="guess").status == 403
    assert board.post(path, csrf=board.csrf()).status == 303


@pytest.mark.parametrize("cookie", ["", "guess", "{token}"])
def test_a_wrong_cookie_opens_nothing(stranger: RunningDashboard, cookie: str) -> None:
    """The token of the link is not the cookie: a history holds the link."""
    name = f"tracker-dashboard-{stranger.port}"
    stranger.cookies[name] = cookie.format(token=stranger.token.link)
    assert stranger.get("/").status == 403


@pytest.mark.parametrize("token", ["", "guess", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_wrong_token_opens_nothing(stranger: RunningDashboard, token: str) -> None:
    """And sets no cookie."""
    answer = stranger.get("/open", token=token)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_for_this_host_and_this_browser_alone(stranger: RunningDashboard) -> None:
    """No script reads it, no other site sends it, and another port's has another name."""
    cookie = stranger.sign_in().headers["set-cookie"]
    assert cookie.startswith(f"tracker-dashboard-{stranger.port}=")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "Path=/" in cookie
    assert stranger.token.link not in cookie
    assert stranger.get("/").status == 200


def test_the_link_leads_on_by_a_page(stranger: RunningDashboard) -> None:
    """A redirect would still count as coming from the site on which the link stood."""
    answer = stranger.sign_in()
    assert answer.status == 200
    assert "location" not in answer.headers
    assert re.search(r'<meta http-equiv="refresh" content="0; url=/">', answer.text)


def test_the_token_is_on_no_page(board: RunningDashboard) -> None:
    """It is in the link alone, and has 256 bits."""
    assert len(board.token.link) >= 43
    for path in PAGES:
        assert board.token.link not in board.get(path).text


def test_files_need_no_cookie_and_are_kept(stranger: RunningDashboard) -> None:
    """They hold no data, and their name changes with what is in them."""
    for name in HASHED.values():
        answer = stranger.get(f"/static/{name}")
        assert answer.status == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert stranger.get("/static/..%2fguard.py").status == 404


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
def test_a_form_leads_to_no_other_site(board: RunningDashboard, back: str) -> None:
    """Whatever it says."""
    answer = board.post("/theme", csrf=board.csrf(), theme="dark", back=back)
    assert answer.headers["location"] == "/"


def test_colours_are_remembered(board: RunningDashboard) -> None:
    """Without a script: a form sets a cookie that the server reads."""
    answer = board.post("/theme", csrf=board.csrf(), theme="dark", back="/events?type=llm.used")
    assert answer.headers["location"] == "/events?type=llm.used"
    assert answer.headers["set-cookie"].startswith("theme=dark;")
    board.cookies["theme"] = "dark"
    assert '<html lang="en" data-theme="dark">' in board.get("/events").text
    board.cookies["theme"] = '"><script>'
    assert '<html lang="en">' in board.get("/events").text
    del board.cookies["theme"]


def test_a_large_form_is_refused(board: RunningDashboard) -> None:
    """Before it fills the memory."""
    assert board.post("/theme", csrf=board.csrf(), theme="x" * 20_000).status == 413
