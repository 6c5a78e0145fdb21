"""Retention by event type: what goes when, what is said of it, and what a round costs."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import APIConfig, ConfigurationError
from tracker.events import make_event
from tracker.outbox.integrity import verify
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement
from tracker.outbox.queue.settlement import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import MakeConfig

RULES = {"message.logged": 30, "app.*": 2, "app.kept.*": 100}
DAYS = {
    "message.logged": 30,
    "app.noted": 2,
    "app.kept.long": 100,
    "tool.called": 7,
    "compliance.audited": 3_650,
}


def log(outbox: Outbox, types: Iterable[str]) -> None:
    for each in types:
        outbox.append(make_event(each, {"n": 1}))


def deliver(outbox: Outbox, dead: tuple[int, ...] = ()) -> None:
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 500, 1 << 22)
    letters = [DeadLetter(seq, "x", "y") for seq in dead]
    outbox.run(settlement.settle(batch, letters))


def age(outbox: Outbox, days: float, where: str = "1") -> None:
    """Make what is delivered older, as if so many days had passed."""
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.execute(
            f"UPDATE events SET delivered_at_ms = delivered_at_ms - ? WHERE {where}",  # noqa: S608 - our own
            (int(days * 86_400_000),),
        )


def stored(outbox: Outbox) -> list[tuple[int, str, Any]]:
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql("SELECT seq, type, data FROM events ORDER BY seq").all()
    return [(seq, type_, json.loads(data)) for seq, type_, data in rows]


def types(outbox: Outbox) -> list[str]:
    return [type_ for _, type_, _ in stored(outbox) if type_ != retention.RETENTION_APPLIED]


def test_each_type_of_event_is_kept_as_long_as_is_set_for_it(config: MakeConfig) -> None:
    """By its name, else by the longest prefix, else by retention_days; pending ones always."""
    outbox = Outbox(config(retention=RULES))
    log(outbox, DAYS)
    deliver(outbox)
    log(outbox, ["app.noted"])
    passed = 0.0
    for limit in sorted(DAYS.values()):
        age(outbox, limit - passed - 0.01)
        outbox.prune()
        kept = [each for each in DAYS if DAYS[each] >= limit]
        assert types(outbox) == [*kept, "app.noted"]
        age(outbox, 0.02)
        outbox.prune()
        passed = limit + 0.01
        kept = [each for each in DAYS if DAYS[each] > limit]
        assert types(outbox) == [*kept, "app.noted"]
    with outbox.snapshot() as connection:
        assert verify.verify(connection).ok
    outbox.close()


def test_a_round_says_what_it_removed_and_feeds_no_other(config: MakeConfig) -> None:
    """Counts and days by type; a round that removes only such reports is not reported."""
    outbox = Outbox(config())
    log(outbox, ["message.logged"] * 3 + ["tool.called"])
    deliver(outbox)
    assert outbox.prune() == 0
    assert len(stored(outbox)) == 4, "nothing was removed, nothing is said"
    age(outbox, 8)
    assert outbox.prune() == 4
    said = {
        "removed": {"message.logged": 3, "tool.called": 1},
        "days": {"*": 7.0, "compliance.*": 3_650.0},
    }
    assert stored(outbox) == [(5, "retention.applied", said)]
    deliver(outbox)
    age(outbox, 8)
    assert outbox.prune() == 1
    assert stored(outbox) == []
    outbox.close()


def test_what_is_kept_long_is_not_read_again(config: MakeConfig) -> None:
    """A round begins where the last one found the first event to keep, for each rule."""
    outbox = Outbox(config(durability="process"))
    log(outbox, ["compliance.audited"] * 1_000 + ["tool.called"] * 3)
    for _ in range(3):
        deliver(outbox)
    age(outbox, 8, "seq = 1001")
    outbox.prune()
    jobs = 0
    run = outbox.run

    def counted(job: Any) -> Any:
        nonlocal jobs
        jobs += 1
        return run(job)

    outbox.run = counted  # type: ignore[method-assign]  # to count
    age(outbox, 8, "seq = 1002")
    assert outbox.prune() == 1
    assert jobs <= 6
    outbox.run = run  # type: ignore[method-assign]  # as it was
    outbox.close()


def test_a_dead_letter_that_was_sent_after_all_goes_with_the_next_full_round(
    config: MakeConfig,
) -> None:
    """Rounds have passed it by; another start, as any, begins at the beginning."""
    outbox = Outbox(config())
    log(outbox, ["tool.called"] * 3)
    deliver(outbox, dead=(1,))
    age(outbox, 8)
    assert outbox.prune() == 2
    outbox.run(dead_letters.retry())
    deliver(outbox)
    age(outbox, 8)
    outbox.close()
    outbox = Outbox(config())
    assert outbox.prune() == 2, "and the report"
    outbox.close()


@pytest.mark.parametrize("days_back", [400, 3_653, 20_000])
def test_nothing_is_pruned_while_the_clock_is_before_the_creation_or_the_last_delivery(
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    days_back: int,
) -> None:
    """Whatever the stored times say; it is logged once, and pruning resumes with the clock."""
    outbox = Outbox(config())
    log(outbox, ["tool.called"])
    deliver(outbox)
    age(outbox, 30_000)
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() - days_back * 86_400 * 10**9)
    assert [outbox.prune(), outbox.prune(0)] == [0, 0]
    assert caplog.text.count("nothing is pruned: the clock shows a time before") == 1
    monkeypatch.setattr(time, "time_ns", right)
    assert outbox.prune() == 1
    outbox.close()


def test_pruning_goes_on_with_the_first_delivery_after_a_clock_that_was_ahead(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered in the future counts as delivered now; no date in it blocks for ever."""
    outbox = Outbox(config())
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + 3_653 * 86_400 * 10**9)
    log(outbox, ["tool.called"])
    deliver(outbox)
    monkeypatch.setattr(time, "time_ns", right)
    assert outbox.prune(0) == 0
    log(outbox, ["tool.called"])
    deliver(outbox)
    assert outbox.prune() == 0
    age(outbox, 8)
    assert outbox.prune() == 2
    outbox.close()


def test_days_switched_off_count(config: MakeConfig) -> None:
    """A device that runs now and then does not keep everything for ever."""
    outbox = Outbox(config())
    log(outbox, ["tool.called"])
    deliver(outbox)
    outbox.close()
    age(outbox, 8)
    outbox = Outbox(config())
    assert outbox.prune() == 1
    outbox.close()


@given(
    patterns=st.sets(st.sampled_from(["a.*", "a.b", "a.b.*", "a.b.c", "b.*", "a.bc"])),
    type_=st.sampled_from(["a.b", "a.b.c", "a.b.c.d", "a.bc", "a.c", "b.a", "c.c", "ab.c"]),
)
def test_the_closest_pattern_holds(patterns: set[str], type_: str) -> None:
    """A type's own name, else the longest prefix of whole words."""
    words = type_.split(".")
    closest = [type_, *(".".join(words[:n]) + ".*" for n in range(len(words) - 1, 0, -1))]
    expected = next((each for each in closest if each in patterns), retention.EVERY)
    assert retention.governing(patterns, type_) == expected


def test_compliance_events_stay_ten_years_unless_you_say_otherwise(config: MakeConfig) -> None:
    """The default is added to the rules given."""
    assert config().retention == {"compliance.*": 3_650}
    assert config(retention={"a.b": 1}).retention == {"compliance.*": 3_650, "a.b": 1}
    assert config(retention={"compliance.*": 1}).retention == {"compliance.*": 1}


def test_six_months_are_kept_for_the_ai_act(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an argument or the variable, which commands know too; more is kept as it is given."""
    outbox = Outbox(config(retention="eu_ai_act"))
    log(outbox, ["message.logged", "app.noted", "compliance.audited"])
    deliver(outbox)
    age(outbox, 189)
    assert outbox.prune() == 0
    age(outbox, 2)
    assert outbox.prune() == 2
    assert types(outbox) == ["compliance.audited"]
    assert stored(outbox)[-1][2]["days"] == {"*": 190, "compliance.*": 3_650}
    outbox.close()
    longer = config(retention="eu_ai_act", retention_days=400)
    assert (longer.retention_days, longer.retention) == (400, {"compliance.*": 3_650})
    assert dataclasses.replace(longer, durability="process").retention_days == 400
    monkeypatch.setenv("SDK_RETENTION", "eu_ai_act")
    assert config().retention_days == 190
    assert config(retention={"a.b": 1}).retention_days == 7, "an argument beats the variable"


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"*": 1}, r"retention names '\*'.*retention_days"),
        ({"a*": 1}, "retention names 'a"),
        ({"": 1}, "retention names ''"),
        ({5: 1}, "retention names 5"),
        ({"a.b": -1}, r"retention\['a.b'\] is -1; give a number from 0 to 36500"),
        ({"a.b": "7"}, r"retention\['a.b'\] is '7'"),
        ([("a.b", 1)], "retention is of type list"),
    ],
)
def test_impossible_rules_are_refused(rules: Any, text: str) -> None:
    """With what is wrong, and what is allowed."""
    with pytest.raises(ConfigurationError, match=text):
        APIConfig(api_key="k", client_id="c", retention=rules)
