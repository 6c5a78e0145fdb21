"""`tracker-sync tail`."""

from __future__ import annotations

import json
import signal
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import an_event, call, fill, start
from tracker.cli.filters import Given
from tracker.cli.tail import follow
from tracker.outbox.outbox import Outbox
from tracker.queries.filters import Filters

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


def seqs(output: str) -> list[int]:
    return [json.loads(line)["seq"] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], list(range(3, 13))),
        (["--lines", "2"], [11, 12]),
        (["-n", "0"], []),
        (["--type", "tool.called"], [5]),
        (["--session", "s"], [5, 7]),
        (["--agent", "other"], [7]),
    ],
)
def test_tail_begins_with_the_newest_events(
    config: MakeConfig, options: list[str], expected: list[int]
) -> None:
    """As many as asked for, of those wanted."""
    events = [an_event() for _ in range(12)]
    events[4] = an_event("tool.called", session_id="s")
    events[6] = an_event(session_id="s", agent_id="other")
    fill(config(), events)
    path = config().outbox_path
    shown = call("--outbox", path, "tail", "--no-follow", "--json", *options)
    assert (shown.exit_code, seqs(shown.stdout)) == (0, expected)


def test_new_events_follow(config: MakeConfig) -> None:
    """Each once and in order, more than one read's worth, and none that is not wanted."""
    fill(config(), 2)
    outbox = Outbox(config())
    wanted = Given(Filters(type="message.logged"))
    events = follow(outbox, wanted, 1, endless=True)
    assert next(events).seq == 2
    outbox.append(an_event("tool.called"))
    for _ in range(1200):
        outbox.append(an_event())
    assert [event.seq for event in islice(events, 1200)] == list(range(4, 1204))
    outbox.append(an_event("tool.called"))
    outbox.append(an_event())
    assert next(events).seq == 1205
    events.close()  # type: ignore[attr-defined]  # it is a generator
    outbox.close()


def test_ctrl_c_ends_it_well(config: MakeConfig) -> None:
    """Another process's events show at once; then exit code 0, without a traceback."""
    fill(config(), 1)
    running = start("--outbox", config().outbox_path, "tail", "--json")
    assert running.stdout is not None
    assert seqs(running.stdout.readline()) == [1]
    fill(config(), 1)
    assert seqs(running.stdout.readline()) == [2]
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=20)
    assert (running.returncode, stdout, stderr) == (0, "", "")


def test_a_line_is_one_line(config: MakeConfig) -> None:
    """Cut short, and nothing in it steers the terminal."""
    evil = "\x1b[2J\n" + "x" * 500
    fill(config(), [an_event(session_id="a\nb", data={"content": evil})])
    shown = call("--outbox", config().outbox_path, "tail", "--no-follow").stdout
    assert "\x1b" not in shown
    (line,) = shown.splitlines()
    assert line.startswith("1  ")
    assert line.endswith("…")
    assert len(line) < 200


def test_without_an_outbox_there_is_nothing_to_follow(tmp_path: Path) -> None:
    """Exit code 1, and none is made."""
    shown = call("--outbox", tmp_path / "none.sqlite3", "tail")
    assert shown.exit_code == 1
    assert "nothing was logged" in shown.stderr
    assert not (tmp_path / "none.sqlite3").exists()
