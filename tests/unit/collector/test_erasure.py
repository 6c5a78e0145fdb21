"""The collector's side of an erasure: whose events, in which order, and what its files hold."""

from __future__ import annotations

import json
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import EventChain
from tracker.collector.batch import ReceivedEvent, has_its_digest, parse_batch
from tracker.collector.store import Store
from tracker.collector.tables import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARKER = {"erased": True}
SIZES = [(0, 1), (5, 57), (50, 58), (57, 200), (8_000, 256), (20_000, 3)]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "collector.sqlite3"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def send(store: Store, chain: EventChain, sent: list[dict[str, Any]], client_id: str = "a") -> None:
    body = json.dumps(chain.batch(sent, client_id)).encode()
    batch = parse_batch(body, client_id)
    assert batch.rejected == ()
    store.store_batch(batch, 1)


def erasure(chain: EventChain, event_ids: list[Any], **fields: Any) -> dict[str, Any]:
    data = {"subject": "0" * 64, "event_ids": event_ids}
    return chain.event(data, type="compliance.erased", session_id=None, agent_id=None, **fields)


def held(store: Store, client_id: str = "a") -> dict[str, Any]:
    rows, _ = store.events_after(client_id, 0, 10_000, 1 << 30)
    return {row["event_id"]: json.loads(row["data"]) for row in rows}


def raw(database: Path) -> bytes:
    return b"".join(each.read_bytes() for each in database.parent.glob(database.name + "*"))


def test_only_what_is_named_and_only_the_clients_own(store: Store) -> None:
    """From whatever outbox of the client it came; another client's with the same id stays."""
    first, second, foreign = EventChain(), EventChain(), EventChain()
    sent = first.events(3)
    send(store, first, sent)
    send(store, foreign, [{**sent[0]}], client_id="b")
    send(store, second, [erasure(second, [sent[0]["event_id"]])])
    assert [data == MARKER for data in held(store).values()] == [True, False, False, False]
    assert MARKER not in held(store, "b").values()


@pytest.mark.parametrize("erased_first", [False, True])
@pytest.mark.parametrize(("sent_as", "named_as"), [(str.upper, str.lower), (str.lower, str.upper)])
def test_an_id_in_another_case(
    store: Store,
    sent_as: Callable[[str], str],
    named_as: Callable[[str], str],
    erased_first: bool,
) -> None:
    """A UUID may be written in lower or in upper case: it is the same event that is erased."""
    chain = EventChain()
    event_id = "019a2b3c-4d5e-7f60-8a9b-abcdefabcdef"
    sent = chain.event({"text": "<secret>"}, event_id=sent_as(event_id))
    both = [[sent], [erasure(chain, [named_as(event_id)])]]
    for each in reversed(both) if erased_first else both:
        send(store, chain, each)
    assert held(store)[sent["event_id"]] == MARKER


def test_an_event_that_arrives_after_its_erasure(store: Store) -> None:
    """In the same batch or a later one: it is stored as erased from the start."""
    chain = EventChain()
    late, together = chain.event({"text": "<late>"}), chain.event({"text": "<together>"})
    named = [late["event_id"], together["event_id"]]
    send(store, chain, [together, erasure(chain, named)])
    send(store, chain, [late], client_id="b")
    send(store, chain, [late, chain.event()])
    found = held(store)
    assert [found[event_id] for event_id in named] == [MARKER, MARKER]
    assert held(store, "b")[named[0]] == {"text": "<late>"}


def test_an_erasure_sent_twice_changes_nothing_more(store: Store) -> None:
    """The receipt was lost, and the batch comes again."""
    chain = EventChain()
    sent = chain.event()
    batch = [sent, erasure(chain, [sent["event_id"], str(uuid.uuid4())])]
    send(store, chain, batch)
    before = held(store)
    send(store, chain, batch)
    assert held(store) == before


@pytest.mark.parametrize("late", [False, True])
def test_what_is_left_of_an_erased_event_has_its_digest(store: Store, *, late: bool) -> None:
    """Whether it came before the erasure or after; one without a salt keeps its user."""
    chain = EventChain()
    sent = [chain.event({"text": "x" * size}, user_id="u" * user) for size, user in SIZES]
    sent.append(chain.event({"text": "y"}, user_id="u", salted=False))
    naming = erasure(chain, [each["event_id"] for each in sent])
    for some in ([naming], sent) if late else (sent, [naming]):
        send(store, chain, some)
    rows, _ = store.events_after("a", 0, 100, 1 << 30)
    left = {row["event_id"]: row for row in rows}
    for event in sent:
        row = dict(left[event["event_id"]])
        assert json.loads(row["data"]) == MARKER
        assert row["user_id"] == (None if "salt" in event else "u")
        if "salt" in event:
            fields = {name: row[name] for name in ReceivedEvent._fields}
            assert has_its_digest(ReceivedEvent(**{**fields, "data": row["data"].rstrip()}))


def test_only_what_is_stored_erases(store: Store) -> None:
    """Another event under an id that is here already is not kept, so nothing would tell of it."""
    chain = EventChain()
    asked, other = chain.events(2)
    erased = erasure(chain, [asked["event_id"]])
    send(store, chain, [asked, other, erased])
    for known in (erased, asked):
        send(store, chain, [erasure(chain, [other["event_id"]], event_id=known["event_id"])])
    assert held(store)[other["event_id"]] != MARKER


def test_erasure_events_are_not_erased_and_odd_ones_do_no_harm(store: Store) -> None:
    """What they name may be anything: the batch is stored all the same."""
    chain = EventChain()
    sent = chain.event()
    first = erasure(chain, [sent["event_id"]])
    odd = [[first["event_id"]], [1, None, {}], ["\0" * 36, "x" * 5_000, "é" * 36, ""]]
    send(store, chain, [sent, first, *(erasure(chain, named) for named in odd)])
    send(store, chain, [chain.event({"event_ids": 5}, type="compliance.erased")])
    found = held(store)
    assert len(found) == 6
    assert [event_id for event_id, data in found.items() if data == MARKER] == [sent["event_id"]]


def test_the_report_on_the_outbox_stays_as_it_was(store: Store) -> None:
    """Digests, chain and seq are not touched."""
    chain = EventChain()
    sent = chain.events(5)
    send(store, chain, [*sent, erasure(chain, [each["event_id"] for each in sent])])
    report = store.outbox_report("a", chain.outbox_id)
    assert (report.events, report.chain, report.missing) == (6, "intact", [])


def test_no_file_holds_what_was_erased(store: Store, database: Path) -> None:
    """Two users' texts of all sizes, erased one after the other; the third's stay."""
    chain = EventChain()
    sizes = random.Random(2)  # noqa: S311 - sizes, not secrets
    ids: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for start in range(0, 600, 100):
        sent = []
        for number in range(start, start + 100):
            text = f"<{number % 3}-{number:04}>" * sizes.choice((3, 10, 60, 150, 600))
            name = f"<{number % 3}-user>" * sizes.choice((1, 2, 8, 30))
            sent.append(chain.event({"text": text}, user_id=name))
            ids[number % 3].append(sent[-1]["event_id"])
        send(store, chain, sent)
    for user in (1, 0):
        assert b"<%d-" % user in raw(database)
        send(store, chain, [erasure(chain, ids[user])])
        found = raw(database)
        assert b"<%d-" % user not in found
        assert found.count(b"<2-") > 1_000


def test_a_reader_of_an_old_state_only_puts_it_off(store: Store, database: Path) -> None:
    """The batch is answered at once; with the next one after it, or on opening, the log goes."""
    chain = EventChain()
    sent = chain.event({"text": "<seen>"})
    send(store, chain, [sent])
    with store.reading() as reader:
        reader.execute(events.select()).all()
        send(store, chain, [erasure(chain, [sent["event_id"]])])
        assert b"<seen>" in raw(database)
    send(store, chain, chain.events(1))
    assert b"<seen>" not in raw(database)


def test_a_log_left_by_a_crash_is_emptied_on_opening(store: Store, database: Path) -> None:
    """Whatever ended the collector between the erasure and the emptying."""
    chain = EventChain()
    sent = chain.event({"text": "<seen>"})
    with store.reading() as reader:
        send(store, chain, [sent])
        reader.execute(events.select()).all()
        send(store, chain, [erasure(chain, [sent["event_id"]])])
    assert b"<seen>" in raw(database)
    Store(database).close()
    assert b"<seen>" not in raw(database)
