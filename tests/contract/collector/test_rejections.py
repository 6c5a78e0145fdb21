"""A refused event is told of as refused, not as missing, on both databases."""

from __future__ import annotations

import json
from typing import Any

from tests.support.collector import CollectorClient, CollectorProcess, EventChain


def test_what_was_refused_is_kept_and_a_later_acceptance_settles_it(
    client: CollectorClient,
) -> None:
    """Sent again, it is noted once; accepted, it is an event like any other."""
    chain = EventChain()
    events = chain.events(4)
    bad = [{**events[1], "digest": "0" * 64}, {**events[3], "type": ""}]
    for _ in range(2):
        client.send(chain, [events[0], bad[0], events[2], bad[1]])
    (outbox,) = client.outboxes()
    assert (outbox["missing"], outbox["refused"]) == ([], [[2, 2], [4, 4]])
    assert (outbox["refused_events"], outbox["highest_seq"]) == (2, 4)
    told = client.get("/v1/rejections")
    assert told["next"] is None
    assert [(each["seq"], each["event_id"], each["code"]) for each in told["rejections"]] == [
        (4, events[3]["event_id"], "invalid_event"),
        (2, events[1]["event_id"], "digest_mismatch"),
    ]
    assert {each["outbox_id"] for each in told["rejections"]} == {chain.outbox_id}
    client.send(chain, [events[1]])
    (outbox,) = client.outboxes()
    assert (outbox["missing"], outbox["refused"], outbox["events"]) == ([], [[4, 4]], 3)
    assert [each["seq"] for each in client.get("/v1/rejections")["rejections"]] == [4]


def test_an_event_that_is_no_json_is_noted_alone(client: CollectorClient) -> None:
    """Its neighbours are stored, and its seq is not missing."""
    chain = EventChain()
    body = json.dumps(chain.batch([chain.event({"x": 12345}), chain.event()], client.client_id))
    answer = client.post(body.replace("12345", "NaN").encode())
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
    (outbox,) = client.outboxes()
    assert (outbox["missing"], outbox["refused"], outbox["highest_seq"]) == ([], [[1, 1]], 2)


def test_rejections_have_pages_and_belong_to_their_client(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """Whatever the refused event held."""
    chain = EventChain()
    odd: list[Any] = ["no event", {}, {**chain.event(), "event_id": "\ud800\0" * 300, "seq": 2**80}]
    odd += [{**chain.event(), "agent_id": "x" * 257} for _ in range(3)]
    assert len(client.send(chain, odd)["rejected"]) == 6
    whole = client.get("/v1/rejections")["rejections"]
    pages: list[Any] = []
    page: dict[str, Any] = {"next": None}
    while True:
        page = client.get("/v1/rejections", limit=2, before=page["next"])
        pages += page["rejections"]
        if page["next"] is None:
            break
    assert pages == whole
    assert len(whole) == 5  # the two that say nothing of themselves are one
    assert either_collector.client("other").get("/v1/rejections")["rejections"] == []


def test_every_page_of_a_long_conversation_is_bounded(client: CollectorClient) -> None:
    """Its pages make up the whole, in order, over two outboxes."""
    one, two = EventChain(), EventChain()
    text = {"role": "user", "content": "x" * 1_000_000}
    for _ in range(6):
        client.send(one, [one.event(text)])
        client.send(two, [two.event(text)])
    pages, after = [], None
    while True:
        page = client.get("/v1/conversations/session-1", after=after)
        assert page["status"] == "open"
        assert len(page["events"]) <= 9
        pages.append([(event["outbox_id"], event["seq"]) for event in page["events"]])
        after = page["next"]
        if after is None:
            break
    assert len(pages) == 2
    ids = (one.outbox_id, two.outbox_id)
    assert [place for each in pages for place in each] == [
        (outbox, seq) for outbox in ids for seq in range(1, 7)
    ]
    small = client.get("/v1/conversations/session-1", limit=5)
    assert len(small["events"]) == 5
    assert len(client.get("/v1/conversations/session-1", after=small["next"])["events"]) == 7


def test_outboxes_have_pages(client: CollectorClient) -> None:
    """In the order of first receipt."""
    chains = [EventChain() for _ in range(5)]
    for chain in chains:
        client.send(chain, chain.events(1))
    found: list[str] = []
    after: str | None = "0"
    while after is not None:
        page = client.get("/v1/outboxes", limit=2, after=after)
        assert len(page["outboxes"]) <= 2
        found += [outbox["outbox_id"] for outbox in page["outboxes"]]
        after = page["next"]
    assert found == [chain.outbox_id for chain in chains]
