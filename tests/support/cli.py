"""Outboxes for the tests of `tracker-sync`, and ways to call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from tracker import canonical
from tracker.cli.main import cli
from tracker.events import Event, make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.outbox.queue.settlement import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.config import APIConfig

ROOT = Path(__file__).parents[2]
NOON_MS = 1_793_534_400_000
"""2026-11-01T12:00:00Z."""


def call(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="tracker-sync")


def call_json(*arguments: object) -> Any:
    """Run the command in this process and return the JSON that it prints."""
    return json.loads(call(*arguments, "--json").stdout)


def start(
    *arguments: object, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start the command in a process of its own; stdout and stderr come through pipes."""
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "tracker.cli.main", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        text=True,
        **settings,
    )


def process(
    *arguments: object, environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the command in a process of its own; return exit code, stdout and stderr."""
    started = start(*arguments, environment=environment, stdin=subprocess.DEVNULL)
    stdout, stderr = started.communicate(timeout=60)
    return started.returncode, stdout, stderr


def an_event(
    type: str = "message.logged",
    *,
    session_id: str | None = "session-1",
    agent_id: str | None = "agent-1",
    timestamp_ms: int = NOON_MS,
    data: Mapping[str, Any] | None = None,
) -> Event:
    """Return an event as a tracker would make it at that time."""
    said = data or {"role": "user", "content": "hé"}
    event = make_event(type, said, agent_id=agent_id, session_id=session_id)
    event = event._replace(timestamp_ms=timestamp_ms)
    return event._replace(digest=canonical.digest_of(*event))


def fill(config: APIConfig, events: Sequence[Event] | int = 3) -> list[Event]:
    """Store events, or so many of a kind, in the configuration's outbox; nothing is uploaded."""
    made = [an_event() for _ in range(events)] if isinstance(events, int) else list(events)
    outbox = Outbox(config)
    for event in made:
        outbox.append(event)
    outbox.close()
    return made


def settle(config: APIConfig, count: int, dead: Sequence[int] = ()) -> None:
    """Mark the next `count` pending events delivered, but for the seqs in `dead`: dead letters."""
    outbox = Outbox(config)
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, count, 1 << 22)
    letters = [DeadLetter(seq, "invalid_event", f"event {seq} is odd") for seq in dead]
    outbox.run(settlement.settle(batch, letters))
    outbox.close()
