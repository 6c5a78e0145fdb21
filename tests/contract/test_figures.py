"""Figures: what a call accepts can be read for ever, and is never said to be more than is known."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.support.cli import an_event, call, fill
from tracker import Tracker, ValidationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig

LARGEST = {"milliseconds": 10**12, "tokens": 10**12, "dollars": 10**9}

READS = (
    *(["metrics"], ["usage"], ["usage", "--by", "day"], ["conversations"], ["list"], ["agents"]),
    *(["unclosed"], ["status"], ["conversation", "session-1"], ["tail", "--no-follow"]),
)


def strictly(text: str) -> Any:
    """Read JSON as every other language does: it knows no NaN and no Infinity."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def read_everything(path: Path) -> None:
    """Call each command that reads, for people and for programs."""
    for command in READS:
        shown = call("--outbox", path, *command)
        assert shown.exit_code == 0, (command, shown.output, shown.exception)
        shown = call("--outbox", path, *command, "--json")
        assert shown.exit_code == 0, (command, shown.output, shown.exception)
        for text in shown.stdout.splitlines() if command[0] == "tail" else [shown.stdout]:
            strictly(text)


def test_the_largest_figures_that_are_accepted_can_be_read(config: MakeConfig) -> None:
    """A thousand of each: every sum and mean is finite, and exact where it counts."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        session_id = tracker.performance.start_conversation("agent-1", session_id="session-1")
        for _ in range(100):
            tracker.performance.log_agent_message(
                session_id, "", response_time_ms=LARGEST["milliseconds"], tokens_used=10**12
            )
            tracker.llm.record_usage(
                *("p", "m", LARGEST["tokens"], 0),
                cost_usd=LARGEST["dollars"],
                session_id="session-1",
            )
        metrics, (usage,) = tracker.performance.get_metrics(), tracker.llm.get_usage()
    assert metrics.response_time.mean_ms == 10**12
    assert (metrics.tokens_used, metrics.llm_tokens, usage.total_tokens) == (10**14,) * 3
    assert metrics.cost_usd == usage.cost_usd == 10**11
    read_everything(config().outbox_path)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("response_time_ms", value) for value in (1e308, 1e12 + 1, math.inf)),
        *(("cost_usd", value) for value in (1e308, 1e9 + 1, 10**400)),
        *(("tokens_used", value) for value in (10**12 + 1, 2**63)),
        *(("duration_ms", value) for value in (1e308, -1)),
    ],
)
def test_larger_figures_are_refused_at_the_call(
    config: MakeConfig, argument: str, value: float
) -> None:
    """The error names the argument and what is allowed; nothing is stored."""
    received = RecordingDestination()
    with Tracker(config(), destination=lambda: received) as tracker:
        calls: dict[str, Callable[..., str]] = {
            "cost_usd": partial(tracker.llm.record_usage, "p", "m", 1, 1),
            "duration_ms": partial(tracker.operations.log_activity, "a", "b"),
        }
        log = calls.get(argument, partial(tracker.performance.log_agent_message, "s", "text"))
        with pytest.raises(ValidationError, match=f"^{argument}: .*give .*0"):
            log(**{argument: value})
        tracker.flush(5)
    assert received.events == []


ODD = ("1e308", "1e400", "-1e308", "-5", "true", '"7"', "[1]", "NaN", "1" * 5_000, "9" * 40)


FIELDS = ("response_time_ms", "tokens_used", "cost_usd", "total_tokens", "prompt_tokens")
TYPES = ("message.logged", "llm.used", "agent.activity")


def fill_with_odd(settings: APIConfig, values: Sequence[str]) -> None:
    """Store an event of each type with good figures, and one for each odd figure."""
    good = dict.fromkeys(FIELDS, 2)
    fill(settings, [an_event(type_, data=good) for type_ in TYPES * (1 + len(values))])
    with closing(sqlite3.connect(settings.outbox_path)) as connection, connection:
        for number, value in enumerate(values, 1):
            names = (*FIELDS, "duration_ms", "activity")
            odd = "{" + ",".join(f'"{name}":{value}' for name in names) + "}"
            connection.execute("UPDATE events SET data = ? WHERE seq > ?", (odd, number * 3))


def test_odd_figures_stored_before_break_no_command(config: MakeConfig) -> None:
    """Whatever they are, and as many of them as there may be."""
    fill_with_odd(config(), ODD)
    read_everything(config().outbox_path)


@pytest.mark.parametrize("value", ODD, ids=lambda text: text[:8])
def test_odd_figures_stored_before_break_no_read(config: MakeConfig, value: str) -> None:
    """They count as not given, next to others that are summed all the same."""
    fill_with_odd(config(), [value])
    with Tracker(config(), destination=RecordingDestination) as tracker:
        metrics, (usage,) = tracker.performance.get_metrics(), tracker.llm.get_usage()
        (whole,) = tracker.performance.list_conversations()
        tracker.operations.get_recent_activity()
        tracker.performance.get_conversation_history("session-1")
    assert (metrics.tokens_used, metrics.cost_usd, metrics.response_time.mean_ms) == (2, 2, 2)
    assert (usage.calls, usage.cost_usd) == (1, 2)
    assert (whole.tokens_used, whole.cost_usd, whole.unpriced) == (2, 2, 1)


def test_an_unknown_cost_is_never_said_to_be_nothing(config: MakeConfig) -> None:
    """None where no cost is known; where some are, how many are not; a plus sign for people."""
    path = config().outbox_path
    with Tracker(config(), destination=RecordingDestination) as tracker:
        tracker.performance.start_conversation("agent-1", session_id="session-1")
        tracker.llm.record_usage("nobody", "no-such-model", 5, 5, session_id="session-1")
        metrics, (whole,) = (
            tracker.performance.get_metrics(),
            tracker.performance.list_conversations(),
        )
        assert (metrics.cost_usd, metrics.unpriced) == (None, 1)
        assert (whole.cost_usd, whole.unpriced) == (None, 1)
        assert "$" not in call("--outbox", path, "metrics").stdout
        tracker.llm.record_usage(
            "nobody", "no-such-model", 5, 5, cost_usd=0.12, session_id="session-1"
        )
        metrics, (whole,) = (
            tracker.performance.get_metrics(),
            tracker.performance.list_conversations(),
        )
    assert (metrics.cost_usd, metrics.unpriced) == (0.12, 1)
    assert (whole.cost_usd, whole.unpriced) == (0.12, 1)
    assert (
        "$0.1200+ for 2 model calls; 1 of unknown cost" in call("--outbox", path, "metrics").stdout
    )
    assert strictly(call("--outbox", path, "metrics", "--json").stdout)["unpriced"] == 1
    assert strictly(call("--outbox", path, "conversations", "--json").stdout)[0]["unpriced"] == 1
