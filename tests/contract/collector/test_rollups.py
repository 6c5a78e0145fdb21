"""Reads from roll-ups answer like those that go through all events."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from tests.support.collector import EventChain, ForkedCollector
from tests.support.conversations import all_calls, needs_data
from tests.support.rolled import RolledClient, exact_conversations, paged_conversations
from tests.support.sources import Logged
from tests.support.uploads import wait_until
from tracker.collector.main import cli
from tracker.collector.rollups.coverage import covered
from tracker.collector.rollups.position import position
from tracker.collector.rollups.reads import reads_of
from tracker.collector.rollups.roller import CLAIM, Roller
from tracker.collector.store import Store
from tracker.collector.tables import events, heads
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.reads import Reads
from tracker.queries.usage import BY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer
    from tracker.queries.metrics import Metrics
    from tracker.queries.reads import Usages

pytestmark = pytest.mark.slow

DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")


@pytest.fixture(scope="module")
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    found = Store(postgres_server.new_database())
    device = Device(found)
    device.log([Logged("cart.abandoned")])
    device.roll()
    yield found
    found.close()


class Device(RolledClient):
    """A client, with what is to be the same however its events are read."""

    def is_rolled(self, wanted: Filters = EVERYTHING) -> bool:
        with self.store.reading() as connection:
            return covered(connection, self.client_id, wanted) is not None

    def check(self, wanted: Filters) -> None:
        """See that both kinds of reads answer alike."""
        rolled = reads_of(self.client_id)
        exact = Reads(rolled.events)
        with self.store.reading() as connection:
            alike(exact.metrics(connection, wanted), rolled.metrics(connection, wanted))
            for by in BY:
                expected, found = (each.usage(connection, by, wanted) for each in (exact, rolled))
                assert found == expected
                part = rolled.usage(connection, by, wanted, 1, 2)
                assert part.rows == expected.rows[1:3]
                assert not part.rows or part.groups == expected.groups
            assert rolled.agents(connection, wanted) == exact.agents(connection, wanted)
            assert rolled.overview(connection, wanted) == exact.overview(connection, wanted)
        expected_ones = exact_conversations(self.store, self.client_id, wanted)
        assert paged_conversations(self.store, self.client_id, wanted) == expected_ones


def alike(expected: Metrics, found: Metrics) -> None:
    """See that metrics are the same, but for the last digit of a mean or a percent of a time."""
    for each, other in zip((expected, *expected.days), (found, *found.days), strict=True):
        for name in PERCENTILES:
            time, told = (getattr(one.response_time, name) for one in (each, other))
            assert told == (None if time is None else pytest.approx(time, rel=0.01, abs=1e-6))
        first, second = (asdict(without_percentiles(one)) for one in (each, other))
        assert second == approximately(first)


def without_percentiles(metrics: Metrics) -> Metrics:
    time = replace(metrics.response_time, p50_ms=None, p95_ms=None, p99_ms=None)
    return replace(metrics, response_time=time, days=())


def approximately(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: approximately(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(approximately, value))
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


NUMBERS = (-1, 0, 1e-9, 0.5, 2, 2.5, 3.4999999999999996, 5, 5.0, 7e12, 1.7e308)
ODD: st.SearchStrategy[Any] = st.sampled_from([*NUMBERS, None, True, False, "", "3", [], {}])
WORDS = ("", "a", "FAILED", "Error", "failed ", "ok", "na\0me", "x" * 1_200)
TEXTS: st.SearchStrategy[Any] = st.sampled_from([*WORDS, 7, None])
NAMES = TEXTS.filter(lambda text: text != "na\0me")  # an answer has U+FFFD in it
FIELDS = {
    "message.logged": {"tokens_used": ODD, "response_time_ms": ODD},
    "conversation.ended": {"outcome": TEXTS, "quality_score": ODD},
    "llm.used": {
        "model": TEXTS, "cost_usd": ODD, "total_tokens": ODD, "prompt_tokens": ODD,
        "completion_tokens": ODD, "cached_tokens": ODD, "cache_write_tokens": ODD,
    },
    "score.recorded": {"name": NAMES, "value": st.one_of(ODD, NAMES), "erased": ODD},
    "feedback.recorded": {"score": ODD, "value": TEXTS},
    "agent.registered": {"name": TEXTS},
    "agent.status_changed": {"status": st.sampled_from(["busy", "idle", "gone", 3])},
}  # fmt: skip
TYPES = [
    *FIELDS, "conversation.started", "conversation.resumed", "conversation.failed", "tool.called",
    "agent.heartbeat", "agent.activity", "cart.abandoned",
]  # fmt: skip


@st.composite
def logged(draw: st.DrawFn) -> Logged:
    type_ = draw(st.sampled_from(TYPES))
    given = FIELDS.get(type_, {})
    data = {name: draw(value) for name, value in given.items() if draw(st.integers(0, 3))}
    time = START_MS + draw(st.integers(0, 4 * DAY_MS))
    if draw(st.integers(0, 30)) == 0:
        time = draw(st.sampled_from([-1, -DAY_MS, 0, 253_402_300_799_999, 253_402_300_800_000]))
    return Logged(
        type_,
        draw(st.sampled_from(["s-1", "s-2", "s-3", None])),
        data,
        time,
        draw(st.sampled_from(["a-1", "a-2", "", None])),
    )


PHASES = (Phase.explicit, Phase.generate)
"""A failure is not made smaller: that would take minutes."""

PERIODS = st.sampled_from(
    [
        EVERYTHING,
        Filters(agent_id="a-1"),
        Filters(since_ms=START_MS + DAY_MS),
        Filters(since_ms=START_MS + DAY_MS // 3),
        Filters(until_ms=START_MS + 3 * DAY_MS),
        Filters(START_MS + DAY_MS // 2, START_MS + 3 * DAY_MS + 1, agent_id="a-2"),
        Filters(START_MS + DAY_MS // 2, START_MS + DAY_MS),
        Filters(session_id="s-1"),
    ]
)


@pytest.mark.timeout(600)  # hundreds of queries
@given(data=st.data())
@settings(max_examples=15, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_in_whatever_order_both_answer_alike(
    store: Store, data: st.DataObject
) -> None:
    """Late events, odd figures, erasures, and any part of it rolled up."""
    device = Device(store)
    for _ in range(data.draw(st.integers(1, 3))):
        device.log(data.draw(st.lists(logged(), max_size=25)))
        if data.draw(st.booleans()):
            device.roll(data.draw(st.sampled_from([None, 1, 2, 3])))
        if data.draw(st.booleans()):
            device.erase(data.draw(st.lists(st.integers(0, 40), max_size=4)))
        if data.draw(st.booleans()):
            device.roll(data.draw(st.sampled_from([None, 1])))
        device.check(data.draw(PERIODS))
    device.roll()
    assert device.is_rolled()
    device.check(EVERYTHING)


def test_an_erasure_takes_its_figures_out_of_days_that_are_rolled_up(store: Store) -> None:
    """A failure that is erased becomes an end, and no sum has what it said."""
    device = Device(store)
    ended = Logged("conversation.ended", data={"outcome": "failed", "quality_score": 2})
    device.log([Logged("conversation.started"), ended])
    device.roll()
    with store.reading() as connection:
        before = reads_of(device.client_id).metrics(connection, EVERYTHING)
    device.erase([1])
    assert not device.is_rolled()  # until it is taken out, the events answer
    device.check(EVERYTHING)
    device.roll()
    assert device.is_rolled()
    with store.reading() as connection:
        after = reads_of(device.client_id).metrics(connection, EVERYTHING)
    device.check(EVERYTHING)
    assert (before.failed, before.outcomes, before.quality_count) == (1, {"failed": 1}, 1)
    assert (after.failed, after.outcomes, after.quality_count) == (0, {}, 0)


def test_sums_of_whole_days_outlive_their_events(store: Store) -> None:
    """What is deleted by age stays in metrics and usage."""
    device = Device(store)
    device.log(talk(1))
    device.roll()
    rolled = reads_of(device.client_id)

    def told() -> tuple[Metrics, Usages]:
        with store.reading() as connection:
            found = rolled.metrics(connection, EVERYTHING)
            return found, rolled.usage(connection, "model", EVERYTHING)

    before = told()
    with store.writing(device.client_id) as connection:
        connection.execute(delete(events).where(events.c.client_id == device.client_id))
    device.roll()
    assert told() == before
    assert (before[0].messages, before[1].rows[0].calls) == (1, 1)


def test_an_erasure_leaves_the_sums_of_a_day_of_which_events_were_deleted(store: Store) -> None:
    device = Device(store)
    device.log(talk(1))
    device.roll()
    with store.writing(device.client_id) as connection:
        gone = (events.c.client_id == device.client_id, events.c.type == "message.logged")
        connection.execute(delete(events).where(*gone))
        pruned = {"client_id": device.client_id, "outbox_id": "o", "version": 1}
        connection.execute(heads.insert().values(**pruned, pruned_before_ms=START_MS + 9 * DAY_MS))
    device.erase([4])
    device.roll()
    assert device.is_rolled()
    with store.reading() as connection:
        found = reads_of(device.client_id).metrics(connection, EVERYTHING)
    assert (found.messages, found.outcomes) == (1, {"failed": 1})


def test_a_conversation_that_is_resumed_on_another_day_counts_on_both_and_once(
    store: Store,
) -> None:
    device = Device(store)
    first, later = START_MS, START_MS + DAY_MS
    device.log([Logged(f"conversation.{end}", timestamp_ms=first) for end in ("started", "failed")])
    device.roll()
    device.log([Logged("conversation.resumed", timestamp_ms=later)])
    for _ in range(2):  # first from the events, then rolled up
        with store.reading() as connection:
            found = reads_of(device.client_id).metrics(connection, EVERYTHING)
        assert (found.conversations, found.failed, found.open) == (1, 0, 1)
        assert [(day.failed, day.open) for day in found.days] == [(1, 0), (0, 1)]
        device.roll()


def test_model_calls_that_spans_tell_of_are_in_the_sums(store: Store) -> None:
    device = Device(store)
    trace = {"trace_id": "ab" * 16, "span_id": "cd" * 8}
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
                  "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4}  # fmt: skip
    logged = Logged("llm.used", data={"model": "m", "total_tokens": 5, "cost_usd": 0.5})
    device.log([logged, Logged("otel.span", data={"attributes": attributes}, trace=trace)])
    device.roll()
    device.check(EVERYTHING)
    with store.reading() as connection:
        (row,) = reads_of(device.client_id).usage(connection, "model", EVERYTHING).rows
    assert (row.calls, row.total_tokens, row.unpriced) == (2, 12, 1)


@needs_data
def test_recorded_conversations_have_the_same_figures(store: Store) -> None:
    """All of `../shared/data`, over ten days, with a response time for each answer."""
    device = Device(store, 997)
    rng = random.Random(5)  # noqa: S311 - not secrets
    logged = []
    for number, call in enumerate(all_calls()):
        data = {**call.expected_data}
        if data.get("role") == "agent":
            data |= {"response_time_ms": rng.lognormvariate(7, 1), "tokens_used": number}
        session = call.arguments["session_id"]
        time = START_MS + 10 * DAY_MS * number // 6_000
        logged.append(Logged(call.type, session, data, time, call.arguments.get("agent_id", "a-1")))
    device.log(logged)
    device.roll()
    assert device.is_rolled()
    for wanted in (EVERYTHING, Filters(START_MS + DAY_MS // 2, START_MS + 5 * DAY_MS // 2)):
        device.check(wanted)


def test_a_roller_knows_how_far_it_is_behind(postgres_server: PostgresServer) -> None:
    """Of nine events, five are left after the first four."""
    store = Store(postgres_server.new_database())
    try:
        Device(store).log([Logged("cart.abandoned")] * 9)
        roller = Roller(store, 4)
        behind = []
        while roller.step() is not None:
            behind.append(roller.behind)
        assert (max(behind), behind[-1]) == (5, 0)
    finally:
        store.close()


ROLLS = """
import sys
from tracker.collector.rollups.roller import Roller
from tracker.collector.store import Store
store = Store(sys.argv[1])
roller = Roller(store, 5)
while True:
    print("step", flush=True)
    if roller.step() is None:
        break
store.close()
"""


@pytest.mark.timeout(300)  # six processes begin
def test_each_event_is_in_the_sums_once_however_often_the_process_is_killed(
    store: Store, postgres_server: PostgresServer
) -> None:
    """A process rolls up five events at a time, and is killed within a step."""
    url = postgres_server.new_database()
    killed = Store(url)
    try:
        device = Device(killed)
        device.log([each for number in range(60) for each in talk(number)])
        codes = []
        for steps in (*range(2, 7), None):
            with subprocess.Popen(
                [sys.executable, "-c", ROLLS, url], stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                if steps is not None:
                    for _ in range(steps):
                        process.stdout.readline()
                    process.kill()
                codes.append(process.wait())
            device.check(EVERYTHING)
        assert codes[0] == -signal.SIGKILL
        assert codes[-1] == 0
        assert device.is_rolled()
    finally:
        killed.close()


def talk(number: int) -> list[Logged]:
    """Return a conversation of five events."""
    of: Any = {"session_id": f"s-{number}", "timestamp_ms": START_MS + number * DAY_MS // 5,
          "agent_id": f"a-{number % 3}"}  # fmt: skip
    said = {"role": "agent", "content": "Well.", "response_time_ms": number, "tokens_used": 7}
    called = {"model": "m", "total_tokens": 9, "cost_usd": 0.1}
    return [
        Logged("conversation.started", **of),
        Logged("message.logged", data=said, **of),
        Logged("llm.used", data=called, **of),
        Logged("tool.called", data={"name": "look"}, **of),
        Logged("conversation.ended", data={"outcome": "failed" if number % 5 else "ok"}, **of),
    ]


def test_one_process_at_a_time_rolls_up(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    other = Store(url)
    run = partial(CliRunner().invoke, cli, ["roll", "--once", "--database", url])
    try:
        Device(other).log(talk(1))
        with other.claimed(CLAIM):
            refused = run()
        assert (refused.exit_code, refused.output) == (
            1, "Error: another process rolls up the events of this database\n",
        )  # fmt: skip
        done = run()
        assert (done.exit_code, done.output) == (0, "rolled up through event 5\n")
    finally:
        other.close()


def test_sqlite_has_no_roll_ups(tmp_path: Path) -> None:
    database = str(tmp_path / "collector.sqlite3")
    done = CliRunner().invoke(cli, ["roll", "--database", database])
    assert done.exit_code == 2
    assert "there are no roll-ups in SQLite" in done.output


def test_a_server_rolls_up_what_it_receives(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_database()
    key = ["--witness-key", str(tmp_path / "witness.pem")]
    with ForkedCollector(tmp_path, database_url=url, arguments=key) as process:
        client, chain = process.client("test-client"), EventChain()
        client.send(chain, chain.events(3))
        store = Store(url)
        try:
            last = client.events()[-1]["id"]
            wait_until(lambda: rolled_through(store) == last, "the events are rolled up")
        finally:
            store.close()
        assert client.get("/v1/metrics")["messages"] == 3
        assert client.get("/v1/usage") == {"usage": [], "next": None}
        assert [each["agent_id"] for each in client.get("/v1/agents")["agents"]] == ["agent-1"]
        assert client.get("/v1/overview")["agents"] == 1
    assert process.stderr.count("\n") == 2  # the address, and that there is no standby


def rolled_through(store: Store) -> int | None:
    with store.reading() as connection:
        return position(connection)
