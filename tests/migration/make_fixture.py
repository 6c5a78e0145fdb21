"""Writes the fixture of the current schema: ``python -m tests.migration.make_fixture``.

Run once when a schema is released; a released fixture is never made again.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tracker import AgentPerformanceTracker, APIConfig
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement
from tracker.outbox.queue.settlement import DeadLetter
from tracker.outbox.schema import tables

FIXTURES = Path(__file__).parent / "fixtures"


def main() -> None:
    """Log some events, settle a few of them, and dump the outbox as SQL."""
    with tempfile.TemporaryDirectory() as folder:
        config = APIConfig(
            api_key="unused",
            client_id="fixture",
            base_url="http://127.0.0.1:9",
            outbox_path=Path(folder) / "outbox.sqlite3",
        )
        log(config)
        settle(config)
        dump(config.outbox_path, FIXTURES / f"outbox_{tables.HEAD}.sql")


def log(config: APIConfig) -> None:
    with AgentPerformanceTracker(config) as tracker:
        session_id = tracker.start_conversation("agent-1", user_id="user-1", metadata={"é": [1.5]})
        tracker.log_user_message(session_id, 'Where is my order?\n"Ærø" \U0001f6a2')
        tracker.log_tool_call(session_id, "find_order", {"id": 7}, result={"status": "sent"})
        tracker.log_agent_message(session_id, "On its way.", 150.25, 12, model="m-1")
        tracker.end_conversation(session_id, quality_score=4.5)
        tracker.start_conversation("agent-2", session_id="left-open")


def settle(config: APIConfig) -> None:
    """Deliver the first event and make the second a dead letter; the rest stays pending."""
    outbox = Outbox(config)
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 2, 10**6)
    outbox.run(settlement.settle(batch, [DeadLetter(2, "invalid_event", "refused")]))
    outbox.close()


def dump(path: Path, target: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        lines = list(connection.iterdump())
    head = [f"PRAGMA application_id={tables.APPLICATION_ID};", "PRAGMA auto_vacuum=INCREMENTAL;"]
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    sys.stderr.write(f"wrote {target}\n")


if __name__ == "__main__":
    main()
