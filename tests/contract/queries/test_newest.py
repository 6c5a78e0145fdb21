"""The newest conversations are found window by window: the same as by a look at all of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sources import START_MS, Logged, Source, outbox
from tracker.queries.conversations import Conversation, conversation_page, find_conversation
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.newest import FIRST_ROWS, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

TYPES = (
    *("conversation.started", "message.logged", "message.logged", "tool.called", "llm.used"),
    *("conversation.ended", "conversation.failed", "conversation.resumed"),
)
FILTERS = [
    EVERYTHING,
    Filters(agent_id="agent-1"),
    Filters(user_id="user-1"),
    Filters(agent_id="agent-1", user_id="user-1"),
    Filters(type="tool.called"),
    Filters(user_id="user-1", environment="prod"),
    Filters(since_ms=START_MS + 400, until_ms=START_MS + 900),
    Filters(user_id="nobody"),
]


def drawn(draw: random.Random, count: int, each: int) -> list[Logged]:
    """Return events of conversations that overlap, which name agent and user now and then."""
    found = []
    for number in range(count):
        newest = number // each
        names = (draw.choice((None, None, "agent-1", "agent-2")),
                 draw.choice((None, None, None, "user-1", "user-2")))  # fmt: skip
        session_id = f"s-{max(newest - draw.randrange(5), 0)}"
        found.append(
            Logged(
                draw.choice(TYPES),
                None if draw.random() < 0.1 else session_id,
                {"outcome": "failure"} if draw.random() < 0.2 else {"role": "user"},
                START_MS + number,
                *names,
                context={"environment": "prod"} if draw.random() < 0.3 else None,
            )
        )
    return found


def slowly(logged: Sequence[Logged], wanted: Filters, before: int) -> list[str]:
    """Return the sessions that begin before a number and may be wanted, by a look at all."""
    of: dict[str, list[Logged]] = {}
    first: dict[str, int] = {}
    for number, each in enumerate(logged):
        if each.session_id is not None:
            of.setdefault(each.session_id, []).append(each)
            first.setdefault(each.session_id, number)
    return [
        session_id
        for session_id in sorted(first, key=first.__getitem__, reverse=True)
        if first[session_id] < before and is_wanted(of[session_id], wanted)
    ]


def is_wanted(events: list[Logged], wanted: Filters) -> bool:
    return (
        (wanted.agent_id is None or any(each.agent_id == wanted.agent_id for each in events))
        and (wanted.user_id is None or any(each.user_id == wanted.user_id for each in events))
        and any(
            (wanted.type is None or each.type == wanted.type)
            and (wanted.environment is None or each.context == {"environment": wanted.environment})
            for each in events
        )
    )


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    before=st.integers(0, 60),
    rows=st.integers(1, 5),
    wanted=st.sampled_from([one for one in FILTERS if one.since_ms is None]),
    to_the_end=st.booleans(),
)
def test_windows_leave_no_session_out(
    *, seed: int, count: int, before: int, rows: int, wanted: Filters, to_the_end: bool
) -> None:
    """However small they are, wherever the look begins, and whichever event names the user."""
    logged = drawn(random.Random(seed), count, 3)  # noqa: S311 - not secrets
    with outbox() as source:
        source.store(logged)
        found = windows(
            source.connection, source.events, wanted, before + 1, to_the_end=to_the_end, rows=rows
        )
        listed = [each.session_id for window in found for each in window.sessions]
    assert listed == slowly(logged, wanted, before)


@pytest.fixture
def many(source: Source) -> tuple[Source, list[Logged]]:
    """A source whose conversations take more than two windows."""
    logged = drawn(random.Random(7), FIRST_ROWS * 6, 100)  # noqa: S311 - not secrets
    source.store(logged)
    return source, logged


def whole(source: Source, wanted: Filters, status: str | None) -> list[Conversation]:
    """Return all conversations of one status, one after the other."""
    page = conversation_page(source.connection, wanted, status, None, events=source.events)
    return page.conversations


def test_pages_are_those_of_a_look_at_all(many: tuple[Source, list[Logged]]) -> None:
    """By each filter; each conversation is what it is alone, its status the one asked for."""
    source, logged = many
    for wanted in FILTERS:
        expected = []
        for session_id in slowly(logged, wanted, len(logged)):
            one = find_conversation(source.connection, session_id, source.events)
            if one is not None and belongs(one, wanted):
                expected.append(one)
        assert whole(source, wanted, None) == expected
        for status in ("open", "ended", "failed"):
            assert whole(source, wanted, status) == [
                one for one in expected if one.status == status
            ]


def belongs(one: Conversation, wanted: Filters) -> bool:
    return (
        wanted.agent_id in (None, one.agent_id)
        and wanted.user_id in (None, one.user_id)
        and (wanted.since_ms is None or one.started_at_ms >= wanted.since_ms)
        and (wanted.until_ms is None or one.started_at_ms < wanted.until_ms)
    )


@pytest.mark.parametrize(
    ("wanted", "status"),
    [(EVERYTHING, None), (EVERYTHING, "failed"), (FILTERS[3], None), (FILTERS[-1], None)],
)
def test_a_look_that_ends_early_goes_on_where_it_stopped(
    many: tuple[Source, list[Logged]], wanted: Filters, status: str | None
) -> None:
    """Page after page, with no time at all: together they are the pages of a look without end."""
    source, logged = many
    found: list[Conversation] = []
    before, times = None, []
    while True:
        page = conversation_page(
            source.connection, wanted, status, 3, before, source.events, seconds=0
        )
        found += page.conversations
        if page.next is None:
            break
        assert before is None or page.next < before, "it stands still"
        before = page.next
        if page.looked_back_to_ms is not None:
            times.append(page.looked_back_to_ms)
    assert found == whole(source, wanted, status)
    assert times == sorted(times, reverse=True)
    assert {*times} <= {each.timestamp_ms for each in logged}


def test_with_time_enough_a_page_is_full(many: tuple[Source, list[Logged]]) -> None:
    """And says nothing of how far it looked; the last one has no next."""
    source, _ = many
    everything = whole(source, EVERYTHING, None)
    pages, before = [], None
    for _ in range(-(-len(everything) // 50)):
        page = conversation_page(
            source.connection, EVERYTHING, None, 50, before, source.events, seconds=60
        )
        pages.append(page)
        before = page.next
    assert [one for page in pages for one in page.conversations] == everything
    assert {len(page.conversations) for page in pages[:-1]} == {50}
    assert {page.looked_back_to_ms for page in pages} == {None}
    assert before is None
