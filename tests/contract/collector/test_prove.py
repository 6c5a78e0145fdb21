"""`tracker-collector prove`: what is kept about outboxes, held against their events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete, insert, update

from tests.support.collector import EventChain
from tests.support.forwarding import store_events
from tracker.collector.main import cli
from tracker.collector.tables import events, gaps, heads

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.collector.store import Store

CLIENT = "kiosk-17"


@pytest.fixture
def chain(store: Store) -> EventChain:
    """An outbox of which two events are missing."""
    chain = EventChain()
    sent = chain.events(10)
    store_events(store, chain, sent[:4] + sent[6:])
    return chain


def prove(database: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["prove", "--database", database, *arguments])


def change(store: Store, statement: Any) -> None:
    with store.writing(CLIENT) as connection:
        connection.execute(statement)


def test_accounts_that_are_right_are_proved(database: str, store: Store, chain: EventChain) -> None:
    """Gaps, late events and all."""
    other = EventChain()
    sent = other.events(4)
    store_events(store, other, sent[2:], "kiosk-18")
    store_events(store, other, sent[:1], "kiosk-18")
    done = prove(database, "--all")
    assert (done.exit_code, done.output) == (0, "2 outboxes proved, 0 differences\n")
    assert prove(database, "--all", "--client", CLIENT).output.startswith("1 outboxes")
    assert prove(database, "--all", "--sample", "1").output.startswith("1 outboxes")
    one = prove(database, "--outbox", chain.outbox_id, "--json")
    assert json.loads(one.output) == {"outboxes": 1, "differences": []}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (update(events).where(events.c.seq == 3).values(digest="d" * 64),
         ["the chain is intact in the account, broken by the events",
          "the first broken link is none in the account, 3 by the events",
          f"the digest of number 3 is {'d' * 64} in the account, another by the events"]),
        (delete(events).where(events.c.seq == 2),
         ["the number of events is 8 in the account, 7 by the events",
          "a gap is (5, 6) in the account, (2, 2) by the events",
          "a gap is none in the account, (5, 6) by the events"]),
        (delete(gaps), ["a gap is none in the account, (5, 6) by the events"]),
        (update(heads).values(highest_seq=9, events=9),
         ["the number of events is 9 in the account, 8 by the events",
          "the highest number is 9 in the account, 10 by the events"]),
    ],
)  # fmt: skip
def test_each_difference_is_named(
    database: str, store: Store, chain: EventChain, statement: Any, said: list[str]
) -> None:
    """Whether the events were changed or the account; nothing is corrected by that."""
    change(store, statement)
    for _ in range(2):
        done = prove(database, "--all")
        assert done.exit_code == 1
        lines = done.output.splitlines()
        assert lines[:-1] == [
            f"outbox {chain.outbox_id} of client {CLIENT}: {each}" for each in said
        ]
        assert lines[-1] == f"1 outboxes proved, {len(said)} differences"


@pytest.mark.parametrize("changed", [{"data": '{"a":1}'}, {"timestamp_ms": 5}, {"user_id": "eve"}])
def test_an_event_that_was_changed_is_named(
    database: str, store: Store, chain: EventChain, changed: dict[str, Any]
) -> None:
    """By its digest: the account and the chain are made of digests, and know nothing of it."""
    change(store, update(events).where(events.c.seq == 3).values(**changed))
    done = prove(database, "--all")
    assert (done.exit_code, "the digest of number 3 is " in done.output) == (1, True)
    assert done.output.endswith("1 outboxes proved, 1 differences\n")


def test_erased_events_are_as_they_should_be(
    database: str, store: Store, chain: EventChain
) -> None:
    """Their data is gone, and what is left has its digest; without a salt, nothing can be said."""
    sent = [
        chain.event({"text": "<a>" * 99}, user_id="ada", salted=salted) for salted in (True, False)
    ]
    store_events(store, chain, sent)
    data = {"subject": "0" * 64, "event_ids": [each["event_id"] for each in sent]}
    store_events(store, chain, [chain.event(data, type="compliance.erased")])
    done = prove(database, "--all")
    assert (done.exit_code, done.output) == (0, "1 outboxes proved, 0 differences\n")


def test_a_database_that_is_not_there_is_no_proof(tmp_path: Path) -> None:
    """Nothing is made in its place, and a job with a wrong path does not look well."""
    path = tmp_path / "wrong.sqlite3"
    for command in (["prove", "--all"], ["migrate", "--check"], ["migrate"]):
        done = CliRunner().invoke(cli, [*command, "--database", str(path)])
        assert (done.exit_code, f"there is no database {path}" in done.output) == (1, True)
    assert not path.exists()


def test_an_outbox_that_nobody_knows_is_no_proof(
    database: str, store: Store, chain: EventChain
) -> None:
    """Nor is a command that names none."""
    assert prove(database, "--all", "--client", "nobody").exit_code == 1
    assert prove(database, "--outbox", "0" * 36).exit_code == 1
    assert prove(database).exit_code == 2
    assert prove(database, "--all", "--outbox", chain.outbox_id).exit_code == 2


def test_what_a_former_version_stored_is_counted_first(
    database: str, store: Store, chain: EventChain
) -> None:
    """It raises the version of an outbox and keeps no account: that is no difference."""
    sent = {**chain.event(salted=False), "data": '{"content":"hé","role":"user"}'}
    own = {"client_id": CLIENT, "outbox_id": chain.outbox_id, "received_at_ms": 1, "sent_at_ms": 1}
    change(store, insert(events).values(**sent, **own))
    assert prove(database, "--all").exit_code == 1
    change(store, update(heads).values(version=heads.c.version + 1))
    assert prove(database, "--all").exit_code == 0
    assert store.outbox_report(CLIENT, chain.outbox_id).highest_seq == 11


def test_many_events_of_a_former_version_are_counted_in_steps(database: str, store: Store) -> None:
    """As after an update; each step is kept, and what comes meanwhile is not counted twice."""
    chain = EventChain()
    for _ in range(11):
        store_events(store, chain, chain.events(500))
    change(store, delete(gaps))
    change(store, update(heads).values(
        counted=0, whole=False, events=0, highest_seq=0, has_links=False, tail=None,
    ))  # fmt: skip
    store_events(store, chain, chain.events(5))
    found = store.outbox_report(CLIENT, chain.outbox_id)
    assert (found.events, found.highest_seq, found.chain) == (5_505, 5_505, "intact")
    assert prove(database, "--all").exit_code == 0
