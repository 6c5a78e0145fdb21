"""What the collector tells of the events it holds, over HTTP from a real process."""

from __future__ import annotations

import uuid

import pytest
import requests

from tests.support.collector import CollectorClient, CollectorProcess, EventChain


@pytest.fixture
def client(shared_collector: CollectorProcess) -> CollectorClient:
    """Of a collector on SQLite alone: these reads are the same on either database."""
    return shared_collector.client(f"client-{uuid.uuid4()}")


def test_pages_follow_one_another_without_gap_or_overlap(client: CollectorClient) -> None:
    """`next` is where to go on, and null when that was all."""
    chain = EventChain()
    client.send(chain, chain.events(5))
    first = client.get("/v1/events", limit=2)
    second = client.get("/v1/events", after=first["next"], limit=2)
    third = client.get("/v1/events", after=second["next"], limit=2)
    seqs = [[event["seq"] for event in page["events"]] for page in (first, second, third)]
    assert seqs == [[1, 2], [3, 4], [5]]
    assert third["next"] is None
    assert first["next"] == first["events"][-1]["id"]


def test_a_page_of_exactly_the_rest_is_the_last(client: CollectorClient) -> None:
    """No empty page follows."""
    chain = EventChain()
    client.send(chain, chain.events(2))
    assert client.get("/v1/events", limit=2)["next"] is None


def test_missing_seqs_are_reported_until_they_arrive(client: CollectorClient) -> None:
    """A gap is proof of loss; a late batch closes it."""
    chain = EventChain()
    events = chain.events(6)
    client.send(chain, [events[1], events[4], events[5]])
    expected = {
        "outbox_id": chain.outbox_id,
        "client_id": client.client_id,
        "events": 3,
        "highest_seq": 6,
        "missing": [[1, 1], [3, 4]],
        "missing_events": 3,
        "refused": [],
        "refused_events": 0,
        "discarded": [],
        "discarded_events": 0,
        "reused_seqs": [],
        "chain": "intact",
        "chain_breaks_at_seq": None,
        "cosigned_size": 0,
        "contradicting_heads": 0,
        "received_directly": False,
        "refusals": [],
    }
    (found,) = client.outboxes()
    expected["checked_at_ms"] = found["checked_at_ms"]
    assert found == expected
    client.send(chain, events)
    (found,) = client.outboxes()
    expected["checked_at_ms"] = found["checked_at_ms"]
    assert found == {**expected, "events": 6, "missing": [], "missing_events": 0}


def test_a_broken_chain_is_reported_at_its_seq(client: CollectorClient) -> None:
    """An event with a right digest but from another chain was slipped in."""
    chain, other = EventChain(), EventChain()
    other.event()
    events = chain.events(3)
    events[1] = other.event()
    client.send(chain, events)
    (outbox,) = client.outboxes()
    assert (outbox["chain"], outbox["chain_breaks_at_seq"]) == ("broken", 2)


def test_an_erased_event_does_not_break_the_chain(client: CollectorClient) -> None:
    """It is built over digests, which erasure keeps."""
    chain = EventChain()
    events = [chain.event(salted=False) for _ in range(3)]
    events[1]["data"] = {"erased": True}
    assert client.send(chain, events)["accepted"] == 3
    assert client.outboxes()[0]["chain"] == "intact"


def test_a_reused_seq_is_reported_and_both_events_are_kept(client: CollectorClient) -> None:
    """Nothing is deduplicated on seq."""
    chain = EventChain()
    events = chain.events(2)
    chain.seq, chain.chain = 1, events[0]["chain"]
    assert client.send(chain, [*events, chain.event()])["accepted"] == 3
    (outbox,) = client.outboxes()
    assert (outbox["events"], outbox["highest_seq"], outbox["reused_seqs"]) == (3, 2, [2])


def test_outboxes_are_reported_apart_in_order_of_receipt(client: CollectorClient) -> None:
    """Each has its own seqs and its own chain."""
    chains = [EventChain() for _ in range(3)]
    for chain in chains:
        client.send(chain, chain.events(2))
    outboxes = client.outboxes()
    assert [outbox["outbox_id"] for outbox in outboxes] == [chain.outbox_id for chain in chains]
    assert {outbox["chain"] for outbox in outboxes} == {"intact"}


def test_a_conversation_is_told_in_order(client: CollectorClient) -> None:
    """By seq within an outbox, whatever order the events came in; other sessions stay out."""
    chain = EventChain()
    events = [
        chain.event({}, type="conversation.started", timestamp_ms=100, session_id="s"),
        chain.event(session_id="other"),
        chain.event(session_id="s", user_id="u", agent_id=None),
        chain.event({}, type="conversation.ended", timestamp_ms=300, session_id="s"),
    ]
    client.send(chain, events[2:])
    client.send(chain, events[:2])
    found = client.conversation("s")
    told = found.pop("events")
    assert found == {
        "session_id": "s",
        "agent_id": "agent-1",
        "user_id": "u",
        "started_at_ms": 100,
        "ended_at_ms": 300,
        "status": "ended",
        "next": None,
    }
    assert [event["seq"] for event in told] == [1, 3, 4]
    for event, sent in zip(told, [events[0], *events[2:]], strict=True):
        assert event["outbox_id"] == chain.outbox_id
        assert {name: event[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("types", "status", "ended_at_ms"),
    [
        (["message.logged"], "open", None),
        (["conversation.started", "message.logged"], "open", None),
        (["conversation.started", "conversation.failed"], "failed", 2),
        (["conversation.started", "conversation.ended", "message.logged"], "ended", 2),
        (["conversation.ended", "conversation.resumed"], "open", None),
        (["conversation.failed", "conversation.resumed", "conversation.ended"], "ended", 3),
    ],
)
def test_a_conversations_status_is_what_its_last_turn_says(
    client: CollectorClient, types: list[str], status: str, ended_at_ms: int | None
) -> None:
    """Resuming opens it again."""
    chain = EventChain()
    events = [chain.event(type=name, timestamp_ms=n) for n, name in enumerate(types, 1)]
    client.send(chain, events)
    found = client.conversation("session-1")
    assert (found["status"], found["ended_at_ms"]) == (status, ended_at_ms)
    assert found["started_at_ms"] == 1


def test_a_conversation_over_two_outboxes_keeps_them_together(client: CollectorClient) -> None:
    """A kiosk whose outbox was replaced goes on in the same session."""
    one, two = EventChain(), EventChain()
    late = one.events(2)
    client.send(one, late[:1])
    client.send(two, two.events(2))
    client.send(one, late[1:])
    told = client.conversation("session-1")["events"]
    assert [(event["outbox_id"], event["seq"]) for event in told] == [
        (one.outbox_id, 1),
        (one.outbox_id, 2),
        (two.outbox_id, 1),
        (two.outbox_id, 2),
    ]


@pytest.mark.parametrize(
    "session_id",
    [
        "a/b",
        "/a",
        "a/",
        "a//b",
        "a b+c",
        "%2F",
        "?x=1#y",
        "日本",
        "a\nb",
        "a\n",
        "'\"\\",
        "x" * 256,
    ],
)
def test_any_session_id_can_be_asked_for(client: CollectorClient, session_id: str) -> None:
    """Whatever a client may send, the path can say."""
    chain = EventChain()
    client.send(chain, [chain.event(session_id=session_id)])
    assert client.conversation(session_id)["session_id"] == session_id


def test_clients_do_not_see_one_another(
    shared_collector: CollectorProcess, client: CollectorClient
) -> None:
    """Not by listing, not by session, not by outbox, not even by sending the same event id."""
    other = shared_collector.client(f"client-{uuid.uuid4()}")
    chain = EventChain()
    events = chain.events(2)
    client.send(chain, events)
    assert other.events() == []
    assert other.outboxes() == []
    with pytest.raises(requests.HTTPError, match="404"):
        other.conversation("session-1")
    receipt = other.send(chain, events[1:])
    assert (receipt["accepted"], receipt["duplicates"]) == (1, 0)
    assert client.outboxes()[0]["events"] == 2
    assert other.outboxes()[0]["missing"] == [[1, 1]]
    assert len(client.conversation("session-1")["events"]) == 2
