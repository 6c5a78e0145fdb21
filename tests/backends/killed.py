"""Processes that log and upload, each of which is killed at some moment and started again."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.acceptance.test_no_event_lost import kill, run_until
from tests.acceptance.test_replay import kill_after
from tests.backends.programs import PROGRAMS
from tests.frameworks.requirements import REQUIREMENTS
from tests.support import agent, cli, environments
from tests.support.uploads import wait_until
from tracker.events import OTEL_SPAN_STARTED

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path

KILLS = 3
RUNS = 4
"""Conversations of each program."""
FLUSH_SECONDS = 300
_SECONDS = 100.0


def replay(environment: Mapping[str, str], notes: Path, conversations: int) -> None:
    """Log recorded conversations, in processes that are killed."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for _ in range(KILLS):
        process = agent.start(environment, "replay", notes, conversations)
        kill_after(process, notes, chance.randint(50, 200))
    process = agent.start(environment, "replay", notes, conversations)
    run_until("finished", process)
    process.wait()
    kill(process)


def run_agents(environment: Mapping[str, str], folder: Path) -> int:
    """Run all programs of agents; each is killed once. Return how many of those kills hit."""
    chance = random.Random(6)  # noqa: S311 - repeatable, not secret
    hits = 0
    for place, (framework, text) in enumerate(PROGRAMS.items()):
        program = folder / f"{framework}_program.py"
        program.write_text(text)
        python = environments.python_with(*REQUIREMENTS[framework])
        numbers = list(map(str, range(place * RUNS, (place + 1) * RUNS)))
        target = _begun(environment) + chance.randint(2, 15)
        process = environments.start(python, program, *numbers, **environment)
        done = _killed_when(process, partial(_has_begun, environment, target))
        hits += process.returncode < 0
        left = [number for number in numbers if number not in done]
        printed = environments.run(python, program, *left, **environment)
        assert printed.split() == left
    return hits


def _killed_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> list[str]:
    """Kill a process once a condition holds, unless it ends before; return what it had printed."""
    wait_until(lambda: process.poll() is not None or condition(), "the moment to kill it", _SECONDS)
    process.kill()
    printed, trouble = process.communicate()
    assert "Traceback" not in trouble, trouble
    return printed.split()


def upload(environment: Mapping[str, str], *, again: bool = False) -> None:
    """Upload what is pending; `again`, what was delivered too."""
    if again:
        assert cli.process("resend", "--since", "1d", environment=environment)[0] == 0
    process = cli.start("flush", "--timeout", FLUSH_SECONDS, environment=environment)
    said, trouble = process.communicate(timeout=2 * FLUSH_SECONDS)
    assert process.returncode == 0, said + trouble


def upload_again(environment: Mapping[str, str], kills: int) -> int:
    """Upload all once more, in processes that are killed; return how many of the kills hit."""
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    assert cli.process("resend", "--since", "1d", environment=environment)[0] == 0
    hits = 0
    for _ in range(kills):
        target = _pending(environment) * chance.uniform(0.6, 0.95)
        some = {**environment, "SDK_BATCH_MAX_EVENTS": str(chance.randint(5, 60))}
        process = cli.start("flush", "--timeout", FLUSH_SECONDS, environment=some)
        _killed_when(process, partial(_is_down_to, environment, target))
        hits += process.returncode < 0
    upload(environment)
    return hits


def stored_events(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return all events of the outbox, as they are sent."""
    _, said, _ = cli.process("list", "--limit", "0", "--json", environment=environment)
    return [
        {name: value for name, value in event.items() if name not in ("context", "trace") or value}
        for event in json.loads(said)
    ]


def _has_begun(environment: Mapping[str, str], spans: int) -> bool:
    """Return True once so many spans have begun."""
    return _begun(environment) >= spans


def _is_down_to(environment: Mapping[str, str], pending: float) -> bool:
    """Return True once no more than so many events are pending."""
    return _pending(environment) <= pending


def _begun(environment: Mapping[str, str]) -> int:
    return _number(environment, "SELECT count(*) FROM events WHERE type = ?", OTEL_SPAN_STARTED)


def _pending(environment: Mapping[str, str]) -> int:
    return _number(environment, "SELECT count(*) FROM pending")


def _number(environment: Mapping[str, str], query: str, *given: str) -> int:
    with closing(sqlite3.connect(environment["SDK_OUTBOX_PATH"], timeout=30)) as connection:
        return int(connection.execute(query, given).fetchone()[0])
