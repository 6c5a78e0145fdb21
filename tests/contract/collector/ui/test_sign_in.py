"""Who may see the pages of a collector: by a key of its own, as long as that is valid."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy import select, update

from tests.support.visitor import SCRIPT, TeamVisitor, csrf_in
from tracker.collector.keys import Keys
from tracker.collector.tables import ui_sessions
from tracker.collector.ui.sessions import IDLE_MS, MOST_MS, Sessions

if TYPE_CHECKING:
    from starlette.routing import Route

    from tests.support.collector import CollectorClient, CollectorProcess

OPEN = {"/login", "/static/{file}"}
ADDRESSES = (f"203.0.113.{number}" for number in itertools.count(1))


@pytest.fixture
def address() -> tuple[str, str]:
    """A header by which a proxy says an address that no other test uses."""
    return ("X-Forwarded-For", next(ADDRESSES))


def session_of(collector: CollectorProcess, visitor: TeamVisitor) -> Any:
    """Return the row of a visitor's session."""
    hashed = hashlib.sha256(visitor.secret.encode()).hexdigest()
    with collector.store() as store, store.reading() as connection:
        query = select(ui_sessions).where(ui_sessions.c.id_hash == hashed)
        return connection.execute(query).one()


def test_an_operators_key_leads_to_all_clients(operator: TeamVisitor) -> None:
    """By the first page, which leads on."""
    assert operator.get("/ui/").headers["location"] == "/ui/clients"
    assert operator.get("/ui/clients").status == 200


def test_a_clients_key_leads_to_its_own_pages(
    visitor: TeamVisitor, client: CollectorClient
) -> None:
    """At once."""
    page = visitor.get("/ui/")
    assert page.status == 200
    assert client.client_id in page.text


@pytest.mark.parametrize("key", ["", "guess", "trk_\N{LATIN SMALL LETTER E WITH ACUTE}", "x" * 600])
def test_a_wrong_key_opens_nothing(
    stranger: TeamVisitor, key: str, address: tuple[str, str]
) -> None:
    """And is not shown again."""
    answer = stranger.sign_in(key, address)
    assert answer.status == 403
    assert "unknown" in answer.text
    assert key == "" or key not in answer.text
    assert f"tracker-ui-{stranger.port}" not in stranger.cookies


def test_nothing_is_shown_to_a_stranger(stranger: TeamVisitor, routes: list[Route]) -> None:
    """On no route but the form, the files and their like: a person gets the form, a script 401."""
    checked = 0
    for route in routes:
        if route.path in OPEN:
            continue
        method = "POST" if "POST" in (route.methods or ()) else "GET"
        for headers, status in (((), 303), ((SCRIPT,), 401)):
            answer = stranger.ask(method, f"/ui{route.path}", headers)
            expected = 401 if route.path.endswith(".json") else status
            assert answer.status == expected, route.path
            assert status == 401 or answer.headers.get("location", "/ui/login") == "/ui/login"
            checked += 1
    assert checked > 30


def test_the_secret_is_kept_as_a_hash(
    either_collector: CollectorProcess, visitor: TeamVisitor
) -> None:
    """Beside the key's number, the value of forms and the end: the database signs nobody in."""
    row = session_of(either_collector, visitor)
    assert len(visitor.secret) >= 43
    assert visitor.secret not in repr(row)
    assert (row.csrf, len(row.csrf) >= 43) == (visitor.csrf(), True)
    assert 0 <= row.ends_at_ms - row.used_at_ms - MOST_MS < 60_000
    assert MOST_MS == 12 * 3_600_000
    stolen = TeamVisitor(visitor.port, {f"tracker-ui-{visitor.port}": row.id_hash})
    assert stolen.get("/ui/").status == 303


def test_a_session_is_for_every_process_on_the_database(
    either_collector: CollectorProcess, visitor: TeamVisitor, client: CollectorClient
) -> None:
    """Another one finds it as well."""
    with either_collector.store() as store:
        found = Sessions(store).find(visitor.secret)
    assert found is not None
    assert found.key.client_id == client.client_id


@pytest.mark.parametrize(
    ("steps", "stays"),
    [
        ([IDLE_MS - 1], True),
        ([IDLE_MS + 1], False),
        ([IDLE_MS - 1] * 2, True),
        ([IDLE_MS // 2] * 23, True),
        ([IDLE_MS // 2] * 24, False),
    ],
)
def test_a_session_ends(
    either_collector: CollectorProcess, client: CollectorClient, steps: list[int], *, stays: bool
) -> None:
    """After an hour in which nobody asked for a page, and after twelve in any case."""
    now = 1_790_000_000_000
    with either_collector.store() as store:
        sessions = Sessions(store, lambda: now)
        key = Keys(store).find(client.api_key)
        assert key is not None
        secret = sessions.begin(key)
        found = sessions.find(secret)
        for step in steps:
            assert found is not None
            sessions.note_use(found)
            now += step
            found = sessions.find(secret)
        assert (found is not None) is stays


def test_a_page_that_asks_for_itself_is_no_use(
    either_collector: CollectorProcess, visitor: TeamVisitor
) -> None:
    """One that was left open must not stay open by that."""
    before = session_of(either_collector, visitor).used_at_ms - 600_000
    with either_collector.store() as store, store.writing("test") as connection:
        connection.execute(update(ui_sessions).values(used_at_ms=before))
    assert visitor.get("/ui/events", SCRIPT).status == 200
    assert session_of(either_collector, visitor).used_at_ms == before
    assert visitor.get("/ui/events").status == 200
    assert session_of(either_collector, visitor).used_at_ms > before


def test_sessions_that_ended_are_removed(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """When somebody signs in."""
    with either_collector.store() as store:
        key = Keys(store).find(client.api_key)
        assert key is not None
        old = Sessions(store, lambda: 1).begin(key)
        Sessions(store).begin(key)
        with store.reading() as connection:
            hashes = set(connection.execute(select(ui_sessions.c.id_hash)).scalars())
        assert hashlib.sha256(old.encode()).hexdigest() not in hashes


def test_the_cookie_is_for_these_pages_alone(stranger: TeamVisitor, operator_key: str) -> None:
    """No script reads it, no other site sends it, no other path gets it."""
    stranger.sign_in(operator_key)
    (cookie,) = (each for each in stranger.told if stranger.secret in each)
    said = {each.strip().lower() for each in cookie.split(";")[1:]}
    assert said == {"httponly", "samesite=strict", "path=/ui", "max-age=43200"}


def test_over_https_the_cookie_stays_on_https(stranger: TeamVisitor, operator_key: str) -> None:
    """As a proxy says, or the browser."""
    origin = ("Origin", f"https://{stranger.host}")
    for header in (("X-Forwarded-Proto", "https"), origin):
        assert stranger.sign_in(operator_key, header).status == 303
        assert all("; Secure" in each for each in stranger.told), header


def test_a_revoked_key_is_out_at_once(
    either_collector: CollectorProcess, client: CollectorClient, visitor: TeamVisitor
) -> None:
    """From the next request on; another key of the same client is not."""
    other = TeamVisitor.of(either_collector, either_collector.create_key(client.client_id))
    assert visitor.get("/ui/").status == other.get("/ui/").status == 200
    with either_collector.store() as store:
        keys = Keys(store)
        found = keys.find(client.api_key)
        assert found is not None
        keys.revoke(found.id)
    assert visitor.get("/ui/").status == 303
    assert visitor.get("/ui/conversation.json", id="x").status == 401
    assert other.get("/ui/").status == 200


def test_an_address_fails_ten_times_a_minute(
    stranger: TeamVisitor, operator_key: str, address: tuple[str, str]
) -> None:
    """Then it has to wait, even with a right key; others need not."""
    answers = [stranger.sign_in(f"guess {number}", address) for number in range(11)]
    assert [each.status for each in answers] == [403] * 10 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert stranger.sign_in(operator_key, address).status == 429
    assert stranger.sign_in(operator_key, ("X-Forwarded-For", next(ADDRESSES))).status == 303


def test_an_address_signs_in_as_often_as_it_likes(
    stranger: TeamVisitor, operator_key: str, address: tuple[str, str]
) -> None:
    """Only what fails counts."""
    assert {stranger.sign_in(operator_key, address).status for _ in range(12)} == {303}


def test_every_form_carries_its_value(
    visitor: TeamVisitor, client: CollectorClient, routes: list[Route]
) -> None:
    """The cookie alone starts nothing, nor does another visitor's value."""
    other = csrf_in(TeamVisitor(visitor.port).get("/ui/login"))
    paths = {f"/ui{route.path}" for route in routes if "POST" in (route.methods or ())}
    assert paths == {"/ui/login", "/ui/logout", "/ui/theme", "/ui/verify"}
    for path in paths:
        for csrf in ("", "guess", other):
            answer = visitor.post(path, csrf=csrf, key=client.api_key)
            assert answer.status == 403, path
        assert visitor.post(path, key=client.api_key).status == 403
    assert visitor.get("/ui/").status == 200


def test_the_form_for_signing_in_is_its_own_visitors(
    stranger: TeamVisitor, operator_key: str
) -> None:
    """Another site can have a browser send a form, but not with the cookie beside it."""
    csrf = csrf_in(stranger.get("/ui/login"))
    stranger.cookies.clear()
    assert stranger.post("/ui/login", key=operator_key, csrf=csrf).status == 403


def test_signing_out_is_a_form(visitor: TeamVisitor) -> None:
    """A link does not, and afterwards the cookie opens nothing, whoever has kept it."""
    assert visitor.get("/ui/logout").status == 405
    kept = TeamVisitor(visitor.port, dict(visitor.cookies))
    assert kept.get("/ui/").status == 200
    answer = visitor.post("/ui/logout", csrf=visitor.csrf())
    assert (answer.status, answer.headers["location"]) == (303, "/ui/login")
    assert f"tracker-ui-{visitor.port}" not in visitor.cookies
    assert kept.get("/ui/").status == 303


def test_no_route_of_the_api_takes_the_cookie(
    either_collector: CollectorProcess, operator: TeamVisitor
) -> None:
    """Neither alone nor beside a wrong key; and no page takes a key."""
    described = requests.get(f"{either_collector.url}/openapi.json", timeout=10).json()
    checked = 0
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            if "security" not in route:
                continue
            asked = path.replace("{session_id}", "s").replace("{trace_id}", "0" * 32)
            asked = asked.replace("{outbox_id}", "x")
            assert operator.ask(method.upper(), asked).status == 401, path
            checked += 1
    assert checked > 20
    bearer = ("Authorization", f"Bearer {either_collector.create_key(None)}")
    assert TeamVisitor(operator.port).get("/ui/clients", bearer).status == 303
