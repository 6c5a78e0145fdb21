"""Processes that log: run as ``python -m tests.support.agent``, settings from the environment.

Each notes what a returned call acknowledged in a file of its own, the tests' independent record.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.conversations import ROOT, all_calls
from tracker import AgentPerformanceTracker, APIConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Notes:
    """A file of acknowledgements, a JSON line each, written with one system call a line.

    A kill can cut even that off between two pages, so each note begins a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, **note: Any) -> None:
        os.write(self._descriptor, f"\n{json.dumps(note)}\n".encode())


def read_notes(path: Path) -> list[dict[str, Any]]:
    """Return what was acknowledged so far; a line cut off by a kill is none."""
    if not path.exists():
        return []
    notes = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        with contextlib.suppress(json.JSONDecodeError):
            notes.append(json.loads(line))
    return notes


def replay(notes_path: str, most: str) -> None:
    """Log the recorded conversations, from the first call that no note acknowledges."""
    done = len(read_notes(Path(notes_path)))
    notes = Notes(Path(notes_path))
    tracker = AgentPerformanceTracker(_quick())
    for index, call in enumerate(all_calls(int(most))):
        if index >= done:
            notes.add(index=index, returned=call.make(tracker))
    print("finished", flush=True)  # noqa: T201 - the parent waits for it
    tracker.close()


def burst(notes_path: str, count: str, then: str) -> None:
    """Log `count` events, then "wait" for a kill, "exit", or "flush" for two minutes at most."""
    notes = Notes(Path(notes_path))
    tracker = AgentPerformanceTracker(_quick())
    session_id = tracker.start_conversation("agent-1", session_id="burst")
    for number in range(int(count) - 1):
        notes.add(id=tracker.log_user_message(session_id, f"message {number}"))
    print("logged", flush=True)  # noqa: T201 - the parent waits for it
    if then == "wait":
        threading.Event().wait()
    if then == "flush":
        result = tracker.flush(timeout=120)
        print("pending", result.pending, flush=True)  # noqa: T201 - the parent reads it


def crowd(notes_path: str, threads: str, count: str) -> None:
    """Log from many threads at once, each its own session and order."""
    tracker = AgentPerformanceTracker(_quick())
    log_from_threads(tracker, Path(notes_path), int(threads), int(count))
    tracker.close(timeout=30)


def log_from_threads(
    tracker: AgentPerformanceTracker, notes_path: Path, threads: int, count: int
) -> None:
    """Log `count` messages from each of so many threads; note each."""
    notes = Notes(notes_path)

    def work(thread: int) -> None:
        session_id = f"{os.getpid()}-{thread}"
        for number in range(count):
            event_id = tracker.log_message(session_id, "user", str(number))
            notes.add(id=event_id, session=session_id, number=number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _quick() -> APIConfig:
    return APIConfig(flush_interval=0.05, backoff_base=0.02, backoff_cap=0.2)


def start(environment: Mapping[str, str], *arguments: object) -> subprocess.Popen[str]:
    """Start an agent process; its output comes through a pipe, its errors to ours."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.agent", *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {"replay": replay, "burst": burst, "crowd": crowd}
    roles[sys.argv[1]](*sys.argv[2:])
