"""Pages of conversations from roll-ups are those that all events give."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, func, select, update

from tests.support.rolled import RolledClient, exact_conversations, paged_conversations
from tests.support.sources import START_MS, Logged
from tracker.collector.rollups import conversations
from tracker.collector.rollups.position import SUMS, move
from tracker.collector.rollups.reads import reads_of
from tracker.collector.rollups.roller import CLAIM
from tracker.collector.rollups.tables import rolled_conversations
from tracker.collector.store import Store
from tracker.collector.tables import events, heads
from tracker.queries.filters import EVERYTHING, Filters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tests.support.postgresql import PostgresServer
    from tracker.queries.conversations import Conversation

pytestmark = pytest.mark.slow

HOUR_MS = 3_600_000
STATUSES = ("open", "ended", "failed", None)
WANTED = [
    EVERYTHING,
    Filters(agent_id="a-1"),
    Filters(user_id="u-1"),
    Filters(agent_id="a-2", user_id="u-2"),
    Filters(since_ms=START_MS + 2 * HOUR_MS),
    Filters(until_ms=START_MS + 3 * HOUR_MS),
    Filters(START_MS + HOUR_MS, START_MS + 4 * HOUR_MS, agent_id="a-1"),
    Filters(session_id="s-3"),
    Filters(environment="test"),
    Filters(agent_id="a-1", environment="test"),
    Filters(user_id="nobody"),
]


@pytest.fixture(scope="module")
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    found = Store(postgres_server.new_database())
    device = Device(found)
    device.log([Logged("cart.abandoned")])
    device.roll()
    yield found
    found.close()


class Device(RolledClient):
    """A client whose events are received one after the other, and deleted by age."""

    def log(self, events_: Sequence[Logged]) -> None:
        super().log(events_)
        mine = update(events).where(events.c.client_id == self.client_id)
        with self.store.writing(self.client_id) as connection:
            connection.execute(mine.values(received_at_ms=events.c.seq))

    def prune(self, before: int, type_: str | None = None) -> None:
        """Delete the events before some number, the first of which is 1, all or those of a type."""
        stored = events.c
        gone = [stored.client_id == self.client_id, stored.received_at_ms < before]
        if type_ is not None:
            gone.append(stored.type == type_)
        head = {"client_id": self.client_id, "outbox_id": f"o-{before}-{type_}", "version": 1}
        with self.store.writing(self.client_id) as connection:
            connection.execute(delete(events).where(*gone, stored.type != "compliance.erased"))
            before_this = [heads.c[name] == head[name] for name in ("client_id", "outbox_id")]
            connection.execute(delete(heads).where(*before_this))
            connection.execute(heads.insert().values(**head, pruned_before_ms=before))

    def is_rolled(self) -> bool:
        with self.store.reading() as connection:
            return conversations.look(connection, self.client_id, EVERYTHING, None) is not None

    def exact(self, wanted: Filters = EVERYTHING, status: str | None = None) -> list[Conversation]:
        return exact_conversations(self.store, self.client_id, wanted, status)

    def paged(self, wanted: Filters = EVERYTHING, status: str | None = None) -> list[Conversation]:
        return paged_conversations(self.store, self.client_id, wanted, status, limit=2)

    def check(self, *wanted: Filters) -> None:
        for each in wanted:
            for status in STATUSES:
                assert self.paged(each, status) == self.exact(each, status), (each, status)


TYPES = [
    "conversation.started", "conversation.resumed", "conversation.ended", "conversation.failed",
    "message.logged", "llm.used", "tool.called", "cart.abandoned",
]  # fmt: skip
OUTCOMES = st.sampled_from(["Failed", "error", "ok", "", 7, None, "fa\0iled"])


@st.composite
def logged(draw: st.DrawFn) -> Logged:
    type_ = draw(st.sampled_from(TYPES))
    context = draw(st.sampled_from([None, None, {"environment": "test"}, {"environment": "live"}]))
    return Logged(
        type_,
        draw(st.sampled_from(["s-1", "s-2", "s-3", "s-4", "s-5", None])),
        {"outcome": draw(OUTCOMES)} if type_ == "conversation.ended" else {},
        START_MS + draw(st.integers(0, 5)) * HOUR_MS,
        draw(st.sampled_from(["a-1", "a-2", "", None])),
        draw(st.sampled_from(["u-1", "u-2", "", None])),
        context=context,
    )


@pytest.mark.timeout(600)  # hundreds of queries
@given(data=st.data())
@settings(
    max_examples=12,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
def test_whatever_happens_in_whatever_order_the_pages_are_those_of_all_events(
    store: Store, data: st.DataObject
) -> None:
    """Late events, erasures, deletions by age, and any part of it rolled up."""
    device = Device(store)
    steps = st.sampled_from([None, 0, 1, 2, 3])
    for _ in range(data.draw(st.integers(1, 4))):
        device.log(data.draw(st.lists(logged(), max_size=20)))
        device.roll(data.draw(steps))
        if data.draw(st.booleans()):
            device.erase(data.draw(st.lists(st.integers(0, 40), max_size=4)))
            device.roll(data.draw(steps))
        if data.draw(st.booleans()):
            type_ = data.draw(st.sampled_from([None, None, "conversation.failed"]))
            device.prune(data.draw(st.integers(0, len(device.ids))), type_)
        device.check(*data.draw(st.lists(st.sampled_from(WANTED), min_size=1, max_size=3)))
    device.roll()
    assert device.is_rolled()
    device.check(*WANTED)


def talk(number: int, end: str = "ended", hour: int = 0) -> list[Logged]:
    """Return a conversation of three events."""
    of: Any = {"session_id": f"s-{number}", "agent_id": f"a-{number % 3}",
               "user_id": f"u-{number}", "timestamp_ms": START_MS + hour * HOUR_MS}  # fmt: skip
    kinds = ("conversation.started", "message.logged", f"conversation.{end}")
    return [Logged(kind, **of) for kind in kinds]


def talks(count: int, failed: int) -> list[Logged]:
    """Return conversations of which one failed."""
    each = (talk(number, "failed" if number == failed else "ended") for number in range(count))
    return [one for some in each for one in some]


def names(found: Sequence[Conversation]) -> list[str]:
    """Return the ids of conversations."""
    return [each.session_id for each in found]


FEW = [
    (EVERYTHING, "failed", ["s-3"]),
    (EVERYTHING, "open", []),
    (Filters(user_id="u-5"), None, ["s-5"]),
    (Filters(user_id="nobody"), None, []),
    (Filters(agent_id="a-0"), "failed", ["s-3"]),
    (Filters(since_ms=START_MS + HOUR_MS), None, []),
]


def test_a_few_among_many_are_found_without_a_look_at_the_others(store: Store) -> None:
    """Little is asked of the events but what the found ones said; one is newer than the sums."""
    device = Device(store, part=10_000)
    device.log(talks(3_000, failed=3))
    device.roll()
    device.log([Logged("message.logged", "s-2999")])
    for wanted, status, expected in FEW:
        with store.reading() as connection, asked(connection) as statements:
            page = reads_of(device.client_id).conversations(connection, wanted, status, 50)
        assert names(page.conversations) == expected, wanted
        assert (page.next, page.looked_back_to_ms) == (None, None), wanted
        assert len(statements) < 15, statements
        assert device.exact(wanted, status) == page.conversations


@contextlib.contextmanager
def asked(connection: Connection) -> Iterator[list[str]]:
    """Lend a list of the statements that are run within the block."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(arguments[2])

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(connection, "before_cursor_execute", note)


def test_an_erased_failure_is_an_end_and_nobodys(store: Store) -> None:
    """As long as it is not taken out, the events answer."""
    device = Device(store)
    of: Any = {"session_id": "s-1", "user_id": "u-1"}
    device.log([
        Logged("conversation.started", "s-1"),
        Logged("conversation.ended", data={"outcome": "failed"}, **of),
    ])  # fmt: skip
    device.roll()
    assert names(device.paged(status="failed")) == ["s-1"]
    device.erase([1])
    assert not device.is_rolled()
    assert device.paged(status="failed") == []
    device.roll()
    assert device.is_rolled()
    assert device.paged(status="failed") == []
    assert names(device.paged(status="ended")) == ["s-1"]


def test_a_former_version_that_rolls_up_knows_nothing_of_conversations(store: Store) -> None:
    """It moves only the position of what it adds up: the events answer until this one goes on."""
    device = Device(store)
    device.log(talk(1))
    device.roll()
    device.log([Logged("conversation.failed", "s-1"), *talk(2)])
    with store.writing(CLAIM) as connection:
        newest = connection.execute(select(func.max(events.c.id))).scalar_one()
        move(connection, SUMS, newest)
    assert names(device.paged(status="failed")) == ["s-1"]
    device.roll()
    assert names(device.paged(status="failed")) == ["s-1"]
    assert names(device.paged()) == ["s-2", "s-1"]


def test_sessions_that_were_deleted_by_age_leave_the_roll_ups(store: Store) -> None:
    """One that goes on is told as far as its events are left."""
    device = Device(store)
    device.log([*talk(1, "failed"), *talk(2), *talk(3)])
    device.roll()
    device.prune(6)
    assert [(each.session_id, each.messages) for each in device.paged()] == [("s-3", 1), ("s-2", 0)]
    assert device.paged(status="failed") == []
    RolledClient(store, part=7, client_id=device.client_id).roll()
    one = rolled_conversations.c
    with store.reading() as connection:
        left = select(one.session_id).where(one.client_id == device.client_id)
        assert set(connection.execute(left).scalars()) == {"s-2", "s-3"}
    device.check(*WANTED)


def test_a_conversation_whose_failure_alone_was_deleted_is_open(store: Store) -> None:
    """As its events tell, whatever the roll-ups have of it."""
    device = Device(store)
    device.log([*talk(1, "failed"), *talk(2)])
    device.roll()
    device.prune(4, "conversation.failed")
    assert names(device.paged(status="open")) == ["s-1"]
    assert device.paged(status="failed") == []
