"""Reads of a period find every event of it, in an outbox whose clock leaps."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tracker import canonical
from tracker.events import Event, make_event
from tracker.outbox import browse
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.queries.filters import Filters
from tracker.queries.metrics import get_metrics
from tracker.queries.usage import usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker import APIConfig
    from tracker.outbox.store.transaction import Transaction

HOUR_MS = 3_600_000
START_MS = 1_790_000_000_000


@pytest.fixture(params=range(3))
def draw(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)  # noqa: S311 - not secrets


def logged_at(timestamp_ms: int, event: Event) -> Event:
    event = event._replace(timestamp_ms=timestamp_ms)
    return event._replace(digest=canonical.digest_of(*event))


def leaping(draw: random.Random, count: int) -> list[Event]:
    """Return events by a clock that goes on, leaps ahead, back, and to 1970."""
    now, events = START_MS, []
    for number in range(count):
        now += draw.randrange(0, 2_000)
        if draw.random() < 0.01:
            now = draw.choice((0, START_MS, now + 30 * HOUR_MS, now - 30 * HOUR_MS))
        type_ = draw.choice(("message.logged", "llm.used", "cart.abandoned"))
        data = {"role": "user", "content": f"{number}", "total_tokens": 1, "model": "m"}
        events.append(logged_at(max(now, 0), make_event(type_, data)))
    return events


def store(events: list[Event], transaction: Transaction) -> None:
    for event in events:
        transaction.append(event)


def append(outbox: Outbox, draw: random.Random, events: list[Event]) -> None:
    """Store events alone, and in groups that no block of rows fits to."""
    while events:
        many = draw.choice((1, 1, 1, 7, 300, 512))
        some, events = events[:many], events[many:]
        if many == 1:
            outbox.append(some[0])
        else:
            outbox.run(partial(store, some))


def check(outbox: Outbox, draw: random.Random, stored: list[Event]) -> None:
    """Hold the reads of random periods against the list of what is stored."""
    times = [event.timestamp_ms for event in stored]
    newest = max(times, default=START_MS)
    periods = [(newest, newest + 1), (0, min(times, default=0) + 1)]
    times += [0, START_MS - 1, 2 * START_MS]
    periods += [(draw.choice(times), draw.choice(times) + 1) for _ in range(60)]
    with outbox.reading() as connection:
        for since, until in map(sorted, periods):
            recent = [event for event in stored if event.timestamp_ms >= since]
            wanted = Filters(since_ms=since)
            listed = browse.select(connection, browse.Condition(*wanted.sql(connection)))
            assert [event.event_id for event in listed] == [event.event_id for event in recent]
            calls = sum(event.type == "llm.used" for event in recent)
            assert sum(one.calls for one in usage(connection, "model", wanted)) == calls
            messages = sum(
                event.type == "message.logged" for event in recent if event.timestamp_ms < until
            )
            assert get_metrics(connection, Filters(since, until)).messages == messages


def test_reads_find_every_event_of_a_period(
    config: Callable[..., APIConfig], draw: random.Random
) -> None:
    """After any groups of writes, and after the oldest events have left."""
    outbox = Outbox(config())
    stored = leaping(draw, draw.randrange(300, 3_000))
    append(outbox, draw, stored)
    check(outbox, draw, stored)
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 1_000, 10**7)
    outbox.run(settlement.settle(batch))
    after, gone = 0, 0
    while after >= 0 and gone < 800:
        removed, after = outbox.run(retention.free_delivered(after))
        gone += removed
    assert gone
    check(outbox, draw, stored[gone:])
    more = leaping(draw, 700)
    append(outbox, draw, more)
    check(outbox, draw, stored[gone:] + more)
    outbox.close()


def test_the_time_of_each_event_costs_no_page(config: Callable[..., APIConfig]) -> None:
    """A period's rows are few: one for some 256 events, and none for events that left."""
    outbox = Outbox(config())
    for _ in range(4):
        outbox.run(partial(store, [make_event("cart.abandoned", {}) for _ in range(400)]))
    outbox.close()
    with closing(sqlite3.connect(outbox.path)) as connection:
        assert connection.execute("SELECT count(*) FROM time_ranges").fetchone()[0] <= 7
