"""Whatever interrupts a call, and however often: it alone fails, and what returned is on disk."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults import interrupted
from tests.support.conversations import ROOT
from tests.support.raising import Struck, calling_at, in_a_thread, raising_at
from tests.support.slow_disk import CANNOT, slow_disk
from tracker.events import make_event
from tracker.outbox import outbox as outbox_module
from tracker.outbox.files import file_lock, lock_wait
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import (
    group_commit,
    intake,
    leadership,
    transaction,
    write_connection,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tracker import APIConfig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

FILES = tuple(
    str(module.__file__)
    for module in (
        group_commit, leadership, write_connection, file_lock, lock_wait, outbox_module, intake,
        transaction,
    )
)  # fmt: skip
"""Where calls are struck: the way of a call from the outbox down to SQLite."""


def stored(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [event_id for (event_id,) in connection.execute("SELECT event_id FROM events")]


@pytest.mark.parametrize("kind", interrupted.KINDS)
def test_what_returned_is_stored(
    config: Callable[..., APIConfig], kind: str, full: bool, tell: Callable[[str], None]
) -> None:
    """By an application that is interrupted in every way, while a second one logs beside it."""
    if kind == "greenlets":
        pytest.importorskip("gevent")
    if kind == "memory" and sys.platform != "linux":
        pytest.skip("the system does not limit a process's memory")
    settings = config(on_error="raise")
    folder = settings.outbox_path.parent
    disk = slow_disk(folder, 30) if kind == "signals" and CANNOT is None else {}
    environment = {
        **os.environ,
        **disk,
        "SDK_API_KEY": settings.api_key,
        "SDK_CLIENT_ID": settings.client_id,
        "SDK_BASE_URL": "http://127.0.0.1:9",
        "SDK_OUTBOX_PATH": str(settings.outbox_path),
        "SDK_DURABILITY": "full" if disk else "process",
    }
    said = folder / "said"  # a file: what the interpreter says of ignored exceptions fills a pipe
    with said.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.interrupted", kind, "120" if full else "4"],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    beside: list[str] = []
    outbox = Outbox(config(on_error="raise", base_url="http://127.0.0.1:9"))
    try:
        while process.poll() is None:
            event = make_event("test.beside", {})
            outbox.append(event)
            beside.append(event.event_id)
            threading.Event().wait(0.02)
        out, _ = process.communicate()
    finally:
        process.kill()
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()
    outbox.close()
    assert process.returncode == 0, said.read_text()[-5_000:]
    acknowledged = (folder / "acknowledged").read_text().split()
    found = stored(settings.outbox_path)
    assert set(acknowledged) | set(beside) <= set(found)
    assert len(found) == len(set(found))
    tell(f"interruption: {kind}: {len(acknowledged)} events, {out.strip()}; 0 lost")


class Struggle:
    """Calls on an outbox in this process, and what they returned."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.returned: list[str] = []

    def append(self) -> None:
        event = make_event("test.noted", {})
        self.outbox.append(event)
        self.returned.append(event.event_id)

    def append_all(self) -> None:
        events = [make_event("test.noted", {}) for _ in range(2)]
        self.outbox.append_all(events)
        self.returned += [event.event_id for event in events]

    def run(self) -> None:
        event = make_event("test.noted", {})
        self.outbox.run(lambda transaction: transaction.append(event))
        self.returned.append(event.event_id)

    def check(self) -> None:
        """See that another thread goes on at once."""
        other = threading.Thread(target=self.append, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive(), "another thread hangs"

    def check_all(self) -> None:
        found = stored(self.outbox.path)
        assert set(self.returned) <= set(found)
        assert len(found) == len(set(found))
        with self.outbox.snapshot() as connection:
            assert verify.verify(connection).problems == ()


@pytest.fixture
def struggle(config: Callable[..., APIConfig]) -> Iterator[Struggle]:
    outbox = Outbox(config(on_error="raise", durability="process"))
    yield Struggle(outbox)
    outbox.close()
    gc.collect()  # what struck calls left open: the warnings belong here


CALLS = ["append", "append_all", "run"]

cut_off = pytest.mark.filterwarnings(
    # Files that an interrupted call had just opened, or that were being closed.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@cut_off
@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_struck_at_any_two_lines_fails_alone(
    struggle: Struggle, config: Callable[..., APIConfig], call: str, full: bool
) -> None:
    """On SQLite: another thread and another user of the lock file go on at once."""
    other = Outbox(config(on_error="raise", durability="process"))
    make = getattr(struggle, call)
    make()
    with raising_at(FILES) as count:
        make()
    assert count[0] > 20, "the lines of a call"
    pairs = 0
    for first in range(1, count[0] + 1):
        for second in range(first + 1, first + 1000, 1 if full else 17):
            struggle.append()
            with raising_at(FILES, first, second) as passed, contextlib.suppress(Struck):
                make()
            struggle.check()
            other.append(make_event("test.beside", {}))
            pairs += 1
            if passed[0] < second:
                break
    other.close()
    assert pairs > count[0]
    struggle.check_all()


@cut_off
@pytest.mark.parametrize("inner", CALLS)
@pytest.mark.parametrize("call", CALLS)
@in_a_thread
def test_a_call_inside_another_at_any_line_is_stored_when_it_returns(
    struggle: Struggle, call: str, inner: str, full: bool
) -> None:
    """As a signal handler's is, wherever it falls; the call below is stored as well."""
    make, within = getattr(struggle, call), getattr(struggle, inner)
    make()
    with raising_at(FILES) as count:
        make()

    def handler() -> None:
        before = len(struggle.returned)
        within()
        mine = set(struggle.returned[before:])
        assert mine
        assert mine <= set(stored(struggle.outbox.path))
        called.append(True)

    assert count[0] > 20, "the lines of a call"
    called: list[bool] = []
    for line in range(1, count[0] + 1, 1 if full else 5):
        with calling_at(FILES, line, handler):
            make()
    assert len(called) > count[0] / (2 if full else 10), "calls take a few lines more or less"
    struggle.check()
    struggle.check_all()


def test_health_shows_a_writer_that_cannot_write(
    config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """Within a second of the first event that waits, while another process holds the lock."""
    settings = config(on_error="raise")
    outbox = Outbox(settings)
    outbox.append(make_event("test.noted", {}))
    lock = settings.outbox_path.with_name(settings.outbox_path.name + ".lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        waiting = threading.Thread(target=outbox.append, args=[make_event("test.noted", {})])
        waiting.start()
        waiting.join(1.0)
        trouble = outbox.health().storage_error
        assert trouble is not None
        assert str(lock) in trouble
    finally:
        holder.communicate("go\n")
    waiting.join(30)
    assert outbox.health().storage_error is None
    assert outbox.health().accepted == 2
    outbox.close()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""
