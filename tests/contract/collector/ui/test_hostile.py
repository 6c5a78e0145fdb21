"""What clients send, and what they are called, is text on every page of a collector."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.contract.collector.ui.conftest import TRACE_ID, said
from tests.contract.pages.test_hostile import HOSTILE, KEPT, Inside
from tests.support.collector import CollectorClient
from tracker.collector.keys import Keys

if TYPE_CHECKING:
    from starlette.routing import Route

    from tests.support.collector import CollectorProcess
    from tests.support.visitor import TeamVisitor

NAME = "\"'><script>alert(1)</script><img src=x>{{77*77}}&amp;\N{HEBREW LETTER ALEF}"
LABEL = "</td><style>*{display:none}</style>{% raw %}"
OWN_SCRIPT = re.compile(r"/ui/static/app\.[0-9a-f]{12}\.js")


@pytest.fixture(scope="module")
def hostile(either_collector: CollectorProcess) -> CollectorClient:
    """A client whose name, label and events are hostile."""
    with either_collector.store() as store:
        key, _ = Keys(store).create(NAME, LABEL)
    client = CollectorClient(either_collector.url, NAME, key)
    # requests encodes a header as Latin-1; the collector takes UTF-8.
    client.headers["X-Client-ID"] = NAME.encode().decode("latin-1")
    said(client, HOSTILE)
    return client


def check(text: str, address: str) -> None:
    inside = Inside()
    inside.feed(text)
    inside.close()
    assert (inside.wrong, inside.open) == ([], []), address
    assert not inside.tags & {"img", "style", "iframe", "object", "embed", "base"}, address
    assert [each for each in inside.scripts if not OWN_SCRIPT.fullmatch(each)] == [], address
    assert not [name for name in inside.attributes if name.startswith(("on", "style"))], address
    assert all(link.startswith(("/ui/", "#")) for link in inside.links), address
    assert ">5929<" not in text
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} <= KEPT


def test_no_page_holds_anything_but_its_own_elements(
    operator: TeamVisitor, hostile: CollectorClient, routes: list[Route]
) -> None:
    """Each page that there is, about that client and about all."""
    del hostile
    addresses = [
        f"/ui{route.path}?client={quote(NAME)}"
        for route in routes
        if "GET" in (route.methods or ()) and not route.path.endswith((".json", "{file}"))
    ]
    for listing in ("conversations", "events", "erasures"):
        listed = operator.get(f"/ui/{listing}?client={quote(NAME)}").text
        found = re.findall(r'href="(/ui/(?:conversation|event)\?[^"]*)"', listed)
        assert found, listing
        addresses += [each.replace("&amp;", "&") for each in found[:3]]
    addresses.append(f"/ui/trace?client={quote(NAME)}&id={TRACE_ID}")
    pages = [operator.get(address) for address in addresses]
    for address, page in zip(addresses, pages, strict=True):
        assert page.status in (200, 400, 404), address
        check(page.text, address)
    whole = "".join(page.text for page in pages)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in whole
    assert "&lt;/td&gt;&lt;style&gt;" in whole


def test_what_is_asked_for_is_text_too(operator: TeamVisitor, hostile: CollectorClient) -> None:
    """The query comes back in forms, links and messages."""
    del hostile
    for name in ("client", "id", "agent", "type", "before", "outbox", "by"):
        for path in ("/", "/events", "/conversation", "/clients", "/rejections", "/nothing"):
            query = {"client": NAME, name: HOSTILE}
            answer = operator.get(f"/ui{path}", **query)
            assert answer.status in (200, 400, 404)
            check(answer.text, path)


@pytest.mark.parametrize("key", [HOSTILE, NAME])
def test_what_is_typed_into_the_form_is_not_shown(stranger: TeamVisitor, key: str) -> None:
    """It may be a key with a typing error."""
    answer = stranger.sign_in(key, ("X-Forwarded-For", HOSTILE[20:40].replace("\x1b", "")))
    assert answer.status == 403
    check(answer.text, "/ui/login")
    assert "alert(1)" not in answer.text


def test_a_form_that_is_too_large_is_refused(stranger: TeamVisitor) -> None:
    """Before it fills the memory; nobody has to be signed in for it."""
    assert stranger.post("/ui/login", key="x" * 20_000).status == 413
