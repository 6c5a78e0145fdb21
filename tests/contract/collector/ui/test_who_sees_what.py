"""A client's key sees that client alone, on every route; an operator sees all, changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from tests.contract.collector.ui.conftest import TRACE_ID, said
from tests.support.collector import EventChain

if TYPE_CHECKING:
    from starlette.routing import Route

    from tests.support.collector import CollectorClient, CollectorProcess
    from tests.support.visitor import TeamVisitor

FOR_OPERATORS = {"/clients", "/clients.json", "/keys"}
FOR_ALL = {"/login", "/logout", "/theme", "/static/{file}"}


@pytest.fixture
def other(either_collector: CollectorProcess) -> CollectorClient:
    """Another client, with everything that a page can show."""
    return either_collector.client(f"other-{uuid.uuid4()}")


def readable(routes: list[Route]) -> list[str]:
    found = [each.path for each in routes if "GET" in (each.methods or ())]
    return [path for path in found if path not in FOR_ALL]


def test_no_route_shows_another_client(
    visitor: TeamVisitor, other: CollectorClient, routes: list[Route]
) -> None:
    """Neither by its name nor by the ids of what it has."""
    secret = f"secret{uuid.uuid4().hex}"
    sent = said(other, secret)
    ids = {
        "/conversation": f"{secret}-session",
        "/event": sent[1]["event_id"],
        "/trace": TRACE_ID,
    }
    paths = readable(routes)
    assert len(paths) > 15
    for path in paths:
        query = {"id": ids.get(path.partition(".")[0], "")}
        named = visitor.get(f"/ui{path}", client=other.client_id, **query)
        assert named.status == 403, path
        for answer in (named, visitor.get(f"/ui{path}", **query)):
            assert answer.status in (200, 400, 403, 404), path
            shown = answer.text.replace(query["id"], "") if query["id"] else answer.text
            for told in (f"{secret} said", f"{secret}-user", f"{secret}-a"):
                assert told not in shown, path
        assert other.client_id not in visitor.get(f"/ui{path}", **query).text, path
    form = {"csrf": visitor.csrf(), "outbox": "x"}
    assert visitor.post(f"/ui/verify?client={other.client_id}", **form).status == 403


@pytest.mark.parametrize("path", sorted(FOR_OPERATORS))
def test_pages_of_all_clients_are_for_operators(
    visitor: TeamVisitor, operator: TeamVisitor, path: str
) -> None:
    """A client learns of no other, not even by the rail."""
    assert operator.get(f"/ui{path}").status == 200
    assert visitor.get(f"/ui{path}").status == 403
    assert "/ui/clients" not in visitor.get("/ui/").text


def test_a_client_sees_its_own(visitor: TeamVisitor, client: CollectorClient) -> None:
    """With its name in the address and without."""
    sent = said(client, "mine")
    for query in ({}, {"client": client.client_id}):
        assert "mine said this" in visitor.get("/ui/conversation", id="mine-session", **query).text
        assert "mine-a" in visitor.get("/ui/agents", **query).text
        assert "digest_mismatch" in visitor.get("/ui/rejections", **query).text
        assert sent[3]["event_id"] in visitor.get("/ui/erasures", **query).text
        assert "mine" in visitor.get("/ui/trace", id=TRACE_ID, **query).text
        copied = json.loads(visitor.get("/ui/event.json", id=sent[1]["event_id"], **query).text)
        assert copied["data"] == sent[1]["data"]


def test_an_operator_sees_every_client(
    operator: TeamVisitor, client: CollectorClient, other: CollectorClient, routes: list[Route]
) -> None:
    """On every page, by its name; without one, the list comes first."""
    said(client, "one")
    said(other, "two")
    for path in ("/conversation", "/conversation.json"):
        for each, text in ((client, "one"), (other, "two")):
            query = {"client": each.client_id, "id": f"{text}-session"}
            assert f"{text} said this" in operator.get(f"/ui{path}", **query).text
    for path in readable(routes):
        answer = operator.get(f"/ui{path}", id="x")
        if path not in FOR_OPERATORS:
            assert (answer.status, answer.headers["location"]) == (303, "/ui/clients"), path
    for name in ("nobody", "x" * 300):
        assert operator.get("/ui/", client=name).status == 404


def test_looking_changes_nothing(
    either_collector: CollectorProcess, operator: TeamVisitor, client: CollectorClient,
    routes: list[Route],
) -> None:  # fmt: skip
    """Every page, and a check on a button: the events, keys and rejections are what they were."""
    said(client, "kept")
    before = content(either_collector, client)
    for path in readable(routes):
        operator.get(f"/ui{path}", client=client.client_id, id="kept-session")
    (outbox,) = client.outboxes()
    form = {"csrf": operator.csrf(), "outbox": outbox["outbox_id"]}
    assert operator.post(f"/ui/verify?client={client.client_id}", **form).status == 303
    assert content(either_collector, client) == before


def content(collector: CollectorProcess, client: CollectorClient) -> str:
    from tracker.collector.tables import api_keys, events, heads, rejections

    rows: list[Any] = []
    with collector.store() as store, store.reading() as connection:
        for table in (events, heads, rejections, api_keys):
            # When an outbox was checked is no content of it.
            columns = [each for each in table.c if each.name != "checked_at_ms"]
            query = select(*columns).where(table.c.client_id == client.client_id)
            rows += [tuple(row) for row in connection.execute(query)]
    return hashlib.sha256(repr(sorted(map(repr, rows))).encode()).hexdigest()


def test_keys_are_listed_and_never_shown(
    either_collector: CollectorProcess, operator: TeamVisitor, client: CollectorClient
) -> None:
    """Neither the key nor its hash; and there is no form but those of the frame."""
    page = operator.get("/ui/keys")
    assert client.client_id in page.text
    assert client.api_key not in page.text
    assert hashlib.sha256(client.api_key.encode()).hexdigest() not in page.text
    assert set(re.findall(r'action="([^"]*)"', page.text)) == {"/ui/theme", "/ui/logout"}
    with either_collector.store() as store:
        from tracker.collector.keys import Keys

        found = Keys(store).find(client.api_key)
        assert found is not None
        Keys(store).revoke(found.id)
    assert "revoked" in operator.get("/ui/keys").text


def test_a_page_that_did_not_change_is_not_sent_again(
    operator: TeamVisitor, client: CollectorClient
) -> None:
    """Until a batch came, of that client or, on the list, of any."""
    chain = EventChain()
    client.send(chain, chain.events(2))
    path = f"/ui/events?client={client.client_id}"
    operator.get(path)  # what takes longer is there with the second one
    tag = operator.get(path).headers["etag"]
    again = operator.get(path, ("If-None-Match", tag))
    assert (again.status, again.text) == (304, "")
    client.send(chain, chain.events(1))
    assert operator.get(path, ("If-None-Match", tag)).status == 200
