"""Another program reads an old state for long: the write-ahead log grows, and that is told."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call
from tracker.errors import OutboxFullError
from tracker.events import make_event
from tracker.outbox.files.paths import log_bytes
from tracker.outbox.maintenance.log_growth import LARGE_LOG_BYTES
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM events").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


@contextmanager
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program in the middle of a long read."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        yield process
        process.communicate()


def grow_log(outbox: Outbox) -> None:
    while log_bytes(outbox.path) < LARGE_LOG_BYTES:
        outbox.append_all([make_event("test.noted", {"text": "x" * 200_000}) for _ in range(20)])


def test_a_log_that_grows_beside_a_long_reader_is_said_once_with_the_readers_process(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log of the application and in `doctor`, until the reader has ended."""
    with closing(Outbox(config(durability="process"))) as outbox:
        outbox.append(make_event("test.noted", {}))
        with reader(outbox.path) as other:
            grow_log(outbox)
            outbox.maintain(now=True)
            outbox.maintain(now=True)
            said = [each for each in caplog.messages if "write-ahead log" in each]
            assert len(said) == 1
            told = call("--outbox", str(outbox.path), "doctor").stdout
            for each in (said[0], told):
                assert "fuser" in each if sys.platform != "linux" else f"{other.pid} read" in each
        outbox.empty_log()
        outbox.maintain(now=True)
        assert "reads an old state" not in call("--outbox", str(outbox.path), "doctor").stdout
        assert len([each for each in caplog.messages if "write-ahead log" in each]) == 1


@pytest.mark.parametrize("policy", ["refuse", "discard_oldest"])
def test_a_log_that_another_program_keeps_counts_into_the_size_of_the_outbox(
    config: MakeConfig, policy: str
) -> None:
    """New events are refused until the read ends; what is pending is not discarded for it."""
    settings = config(
        durability="process",
        max_outbox_bytes=LARGE_LOG_BYTES + (4 << 20),
        outbox_full=policy,
        on_error="raise",
    )
    with closing(Outbox(settings)) as outbox:
        outbox.append(make_event("test.noted", {}))
        with reader(outbox.path):
            with pytest.raises(OutboxFullError, match="write-ahead log, which SQLite keeps"):
                fill(outbox)
            with outbox.snapshot() as connection:
                assert ledger.read(connection).discarded == {}
        wait_for_room(outbox)


def fill(outbox: Outbox) -> None:
    for n in range(3_000):
        outbox.append(make_event("test.noted", {"n": n, "text": "x" * 20_000}))


def wait_for_room(outbox: Outbox) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return outbox.append(make_event("test.noted", {}))
        except OutboxFullError:
            time.sleep(0.1)
    raise AssertionError("the outbox stays full")
