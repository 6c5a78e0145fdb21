"""No page of another site gets anything from a collector's pages; the API stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tests.contract.pages.test_guard import POLICY
from tests.support.collector import CollectorProcess, EventChain, ForkedCollector
from tests.support.visitor import SCRIPT, TeamVisitor, csrf_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import CollectorClient
    from tests.support.dashboard import Answer


def check_headers(answer: Answer, *, is_file: bool = False) -> None:
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert is_file or answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ui", (), 308),
        ("/ui/", (), 200),
        ("/ui/login", (), 200),
        ("/ui/clients", (), 403),
        ("/ui/events", (("Host", "evil.example"),), 421),
        ("/ui/events", (("Origin", "null"),), 403),
        ("/ui/events", (("Sec-Fetch-Site", "cross-site"),), 403),
        ("/ui/nothing", (), 404),
        ("/ui/nothing/at/all", (), 404),
        ("/ui/static/nothing.js", (), 404),
        ("/ui/conversation?id=nothing", (), 404),
        ("/ui/conversation", (), 400),
        ("/ui/conversations?before=x", (), 400),
        ("/ui/verify", (), 405),
    ],
)
def test_every_answer_has_the_headers(
    visitor: TeamVisitor, path: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    """Errors too: their text may hold what was asked for."""
    answer = visitor.get(path, *headers)
    assert answer.status == status
    check_headers(answer)


def test_what_a_stranger_gets_has_them_too(stranger: TeamVisitor) -> None:
    """The way to the form, the refusal for a script, and for a form."""
    for answer in (
        stranger.get("/ui/"),
        stranger.get("/ui/", SCRIPT),
        stranger.post("/ui/login", key="x"),
        stranger.ask("PUT", "/ui/"),
        stranger.ask("HEAD", "/ui/login"),
    ):
        assert answer.status in (200, 303, 401, 403, 405)
        check_headers(answer)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_names_of_this_machine_are_served(visitor: TeamVisitor, name: str) -> None:
    """Whichever of them a person types."""
    assert visitor.get("/ui/events", ("Host", f"{name}:{visitor.port}")).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:{port}.evil.example"]
)
@pytest.mark.parametrize("path", ["/ui/", "/ui/login", "/ui/nothing", "/ui"])
def test_another_name_that_leads_here_is_refused(
    visitor: TeamVisitor, host: str, path: str
) -> None:
    """A rebound name would make another site's script one of ours."""
    assert visitor.get(path, ("Host", host.format(port=visitor.port))).status == 421


def test_names_can_be_given(tmp_path: Path) -> None:
    """With and without a port, in the letters that browsers send; these alone."""
    named = ["--ui-host", "Tracker.example.com", "--ui-host", "other.example.com:8443"]
    with ForkedCollector(tmp_path, arguments=named) as collector:
        visitor = TeamVisitor.of(collector)
        for host in ("tracker.example.com", "other.example.com:8443", visitor.host):
            assert visitor.get("/ui/login", ("Host", host)).status == 200, host
            https = ("Origin", f"https://{host}")
            assert visitor.get("/ui/login", ("Host", host), https).status == 200, host
        for host in ("other.example.com", "example.com"):
            assert visitor.get("/ui/login", ("Host", host)).status == 421, host


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_another_origin_is_refused(visitor: TeamVisitor, origin: str) -> None:
    """Also where a stranger may ask, and whatever else the browser says."""
    for path in ("/ui/", "/ui/login"):
        given = (("Origin", origin), ("Sec-Fetch-Site", "same-origin"))
        assert visitor.get(path, *given).status == 403
        assert visitor.post(path, *given, csrf=visitor.csrf()).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_asks_for_is_refused(visitor: TeamVisitor, site: str) -> None:
    """A link may lead to the form, but no form of another site to it."""
    given = ("Sec-Fetch-Site", site)
    for path in ("/ui/", "/ui/events", "/ui/conversation.json?id=x"):
        assert visitor.get(path, given).status == 403
    assert visitor.get("/ui/login", given).status == 200
    for path in ("/ui/login", "/ui/logout", "/ui/verify", "/ui/theme"):
        assert visitor.post(path, given, csrf=visitor.csrf()).status == 403


@pytest.mark.parametrize(
    "header", [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")]
)
def test_no_other_site_signs_anybody_in(
    stranger: TeamVisitor, operator_key: str, header: tuple[str, str]
) -> None:
    """Not even with the value of the form, and a key that is right."""
    csrf = csrf_in(stranger.get("/ui/login"))
    assert stranger.post("/ui/login", header, key=operator_key, csrf=csrf).status == 403
    assert f"tracker-ui-{stranger.port}" not in stranger.cookies
    assert stranger.post("/ui/login", key=operator_key, csrf=csrf).status == 303


def test_files_need_nobody_to_be_signed_in(stranger: TeamVisitor) -> None:
    """They hold no data, and their name changes with what is in them."""
    from tracker.pages.static_files import HASHED

    for name in HASHED.values():
        answer = stranger.get(f"/ui/static/{name}")
        assert answer.status == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        check_headers(answer, is_file=True)


def test_the_guard_is_not_in_the_way_of_the_api(client: CollectorClient) -> None:
    """A device may reach the collector by any name, and gets the answers it always got."""
    headers = {
        **client.headers,
        "Host": "any.example",
        "Origin": "https://any.example",
        "Sec-Fetch-Site": "cross-site",
    }
    chain = EventChain()
    body = chain.batch(chain.events(1), client.client_id)
    posted = requests.post(f"{client.url}/v1/events", json=body, headers=headers, timeout=10)
    assert posted.json()["accepted"] == 1
    for path in ("/v1/ping", "/v1/outboxes", "/uix", "/v1/ui/"):
        answer = requests.get(client.url + path, headers=headers, timeout=10)
        assert answer.status_code == (200 if path in ("/v1/ping", "/v1/outboxes") else 404)
        assert answer.headers["content-type"] == "application/json"
        assert "content-security-policy" not in answer.headers


def test_the_pages_can_be_left_out(tmp_path: Path) -> None:
    """The collector is what it was without them."""
    with ForkedCollector(tmp_path, arguments=["--no-ui"]) as collector:
        answer = requests.get(f"{collector.url}/ui/", timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert collector.get("/v1/ping") == {"protocol": 1}


def test_a_collector_without_the_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does everything else."""
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "jinja2.py").write_text("raise ModuleNotFoundError('none', name='jinja2')")
    monkeypatch.setenv("PYTHONPATH", str(missing))
    with CollectorProcess(tmp_path) as collector:
        assert collector.says("jinja2 is missing: pip install 'agent-tracking-sdk[collector]'")
        assert requests.get(f"{collector.url}/ui/", timeout=10).status_code == 404
        assert collector.get("/v1/ping") == {"protocol": 1}


@pytest.mark.parametrize("name", ["https://x.example", "x.example/ui", "x example", "", "*"])
def test_a_name_that_is_none_is_refused(
    shared_collector: CollectorProcess, tmp_path: Path, name: str
) -> None:
    """At the start, instead of a page that nobody reaches."""
    from click.testing import CliRunner

    from tracker.collector.main import cli

    told = CliRunner().invoke(
        cli, ["serve", "--port", "0", "--database", str(tmp_path / "c"), "--ui-host", name]
    )
    assert told.exit_code == 2
    assert "--ui-host" in told.output
