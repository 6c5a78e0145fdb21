"""What the pages say of each outbox: complete or not, and what became of each missing number."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import CollectorProcess, EventChain, ForkedCollector
from tests.support.visitor import TeamVisitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import CollectorClient

_SECONDS = 20


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def alone(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[CollectorProcess]:
    """A collector without any other test's clients."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    key = ["--witness-key", str(tmp_path / "witness.pem")]
    with ForkedCollector(tmp_path, database_url=url, arguments=key) as process:
        yield process


def checked(operator: TeamVisitor, outboxes: int) -> list[dict[str, Any]]:
    """Return what the list says once every outbox was checked, the worst first."""
    end = time.monotonic() + _SECONDS
    while True:
        found: list[dict[str, Any]] = json.loads(operator.get("/ui/clients.json").text)["outboxes"]
        if len(found) >= outboxes and all(each["checked_at_ms"] for each in found):
            return found
        assert time.monotonic() < end, f"not all were checked: {found}"


def page(operator: TeamVisitor, path: str = "/ui/clients") -> str:
    """Return the words of a page."""
    text = re.sub(r"<[^>]*>", " ", operator.get(path).text.partition("<main")[2])
    return re.sub(r"\s+", " ", text)


def h1(operator: TeamVisitor, path: str = "/ui/clients") -> str:
    """Return what a page says first, once it has counted."""
    end = time.monotonic() + 30
    while True:
        found = re.search(r"<h1>(.*?)</h1>", operator.get(path).text)
        assert found is not None
        said = re.sub(r"<[^>]*>", "", found[1])
        if not said.startswith("Counting") or time.monotonic() >= end:
            return said
        time.sleep(0.05)


def with_holes(client: CollectorClient) -> EventChain:
    """Send 1 to 20 without 4 and 5, which are lost; 7 is refused, 10 to 12 were given up."""
    chain = EventChain()
    events = chain.events(19)
    told = {"reason": "operator", "ranges": [[10, 12]], "count": 3}
    events.append(chain.event(told, type="events.discarded"))
    events[6] = {**events[6], "digest": "0" * 64}
    client.send(chain, [each for each in events if each["seq"] not in (4, 5, 10, 11, 12)])
    return chain


def test_a_new_collector_has_nothing_to_say(alone: CollectorProcess) -> None:
    """Its own key has a client, of which nothing came."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    assert h1(operator) == "No client has sent anything yet."
    assert "test-client" in page(operator)
    assert h1(operator, "/ui/?client=test-client") == "Nothing was received yet."


def test_every_client_is_complete(alone: CollectorProcess) -> None:
    """Only after the chain of each was checked."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    for name in ("kiosk-1", "kiosk-2"):
        chain = EventChain()
        alone.client(name).send(chain, chain.events(30))
    found = checked(operator, 2)
    assert [(each["state"], each["missing"], each["events"]) for each in found] == [
        ("complete", 0, 30)
    ] * 2
    assert h1(operator) == "Every client is complete."
    assert h1(operator, "/ui/?client=kiosk-1") == "Every event is here, up to the newest number."


def test_each_missing_number_says_what_became_of_it(alone: CollectorProcess) -> None:
    """A refused event is no loss, nor is one that the device gave up; the rest is."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    client = alone.client("kiosk-17")
    chain = with_holes(client)
    (found,) = checked(operator, 1)
    assert found["outbox_id"] == chain.outbox_id
    assert (found["state"], found["missing"], found["refused"]) == ("gaps", 2, 1)
    assert [tuple(each.values()) for each in found["gaps"]] == [
        (4, 5, "lost", None),
        (7, 7, "refused", "digest_mismatch"),
        (10, 12, "discarded", None),
    ]
    for path in ("/ui/clients", "/ui/?client=kiosk-17"):
        words = page(operator, path)
        for told in (
            "4 to 5: missing",
            "7: refused here, digest_mismatch",
            "10 to 12: given up on the device",
        ):
            assert told in words, path
        drawn = operator.get(path).text
        for kind in ("missing", "refused-here", "given-up"):
            assert f'<rect class="{kind}"' in drawn
    assert h1(operator) == "1 of 2 clients needs a look."
    assert h1(operator, "/ui/?client=kiosk-17") == "2 events are missing."
    (told_by_api,) = client.outboxes()
    assert told_by_api["missing_events"] - told_by_api["discarded_events"] == found["missing"]


def test_what_was_only_refused_needs_no_look(alone: CollectorProcess) -> None:
    """It is with the device, as a dead letter."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    chain, client = EventChain(), alone.client("kiosk-17")
    events = chain.events(3)
    client.send(chain, [events[0], {**events[1], "digest": "0" * 64}, events[2]])
    (found,) = checked(operator, 1)
    assert (found["state"], found["missing"], found["refused"]) == ("complete", 0, 1)
    assert h1(operator) == "Every client is complete."
    assert h1(operator, "/ui/?client=kiosk-17") == "Nothing is missing; 1 refused."


def test_an_outbox_of_which_everything_was_refused_is_listed(alone: CollectorProcess) -> None:
    """A device with a wrong setting is no silent one."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    chain, client = EventChain(), alone.client("kiosk-17")
    client.send(chain, [{**each, "digest": "0" * 64} for each in chain.events(2)])
    (found,) = checked(operator, 1)
    assert (found["events"], found["refused"], found["missing"]) == (0, 2, 0)
    assert "1 to 2: refused here, digest_mismatch" in page(operator)
    assert h1(operator, "/ui/?client=kiosk-17") == "Nothing is missing; 2 refused."


def test_the_worst_come_first(alone: CollectorProcess) -> None:
    """Changed before missing, more missing before less, complete last."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    fine, few, many, twice, slipped = (
        alone.client(f"c-{name}") for name in ("1-fine", "2-few", "3-many", "4-twice", "5-slipped")
    )
    chain = EventChain()
    fine.send(chain, chain.events(5))
    for client, missing in ((few, 1), (many, 3)):
        chain = EventChain()
        client.send(chain, [chain.events(9)[0], chain.events(missing + 1)[-1]])
    chain = EventChain()
    events = chain.events(4)
    chain.seq, chain.chain = 2, events[1]["chain"]
    twice.send(chain, [*events, *chain.events(2)])
    chain, other = EventChain(), EventChain()
    other.event()
    events = chain.events(3)
    events[1] = other.event()
    slipped.send(chain, events)
    found = checked(operator, 5)
    assert [each["state"] for each in found] == ["changed"] * 2 + ["gaps"] * 2 + ["complete"]
    assert [each["client_id"][2:] for each in found[2:]] == ["3-many", "2-few", "1-fine"]
    assert h1(operator) == "4 of 6 clients need a look."
    words = page(operator)
    assert "Used twice: 3, 4." in words
    assert "The event 2 does not follow the one before it" in words
    order = [words.index(f"c-{name}") for name in ("5-slipped", "3-many", "2-few", "1-fine")]
    assert order == sorted(order)


def test_an_outbox_is_checked_again_on_a_button(alone: CollectorProcess) -> None:
    """From its first event on: what was changed in the database since shows."""
    from tracker.collector.tables import events

    chain, client = EventChain(), alone.client("kiosk-17")
    client.send(chain, chain.events(5))
    visitor = TeamVisitor.of(alone, client.api_key)
    operator = TeamVisitor.of(alone, alone.create_key(None))
    assert checked(operator, 1)[0]["state"] == "complete"
    with alone.store() as store, store.writing("test") as connection:
        changed = events.update().where(events.c.seq == 3).values(digest="0" * 64)
        connection.execute(changed)
    form = {"csrf": visitor.csrf(), "outbox": chain.outbox_id}
    answer = visitor.post("/ui/verify?client=kiosk-17", **form)
    assert (answer.status, answer.headers["location"]) == (303, "/ui/?client=kiosk-17")
    assert checked(operator, 1)[0]["state"] == "changed"
    assert h1(visitor, "/ui/") == "An outbox was changed."


def test_what_came_later_is_checked_too(alone: CollectorProcess) -> None:
    """The counts are those of now, and a gap shows before the chain was read again."""
    operator = TeamVisitor.of(alone, alone.create_key(None))
    chain, client = EventChain(), alone.client("kiosk-17")
    client.send(chain, chain.events(5))
    assert checked(operator, 1)[0]["state"] == "complete"
    client.send(chain, chain.events(3)[2:])
    end = time.monotonic() + _SECONDS
    while h1(operator, "/ui/?client=kiosk-17") != "2 events are missing.":
        assert time.monotonic() < end
