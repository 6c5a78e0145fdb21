"""`tracker-sync list` and `show`."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle
from tests.support.settings import quick
from tracker.cli.output import fit
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import browse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six events: 1 and 2 delivered, 3 dead, 4 to 6 pending; the last one logged just now."""
    settings = quick(tmp_path_factory.mktemp("events"))
    events = [
        an_event("conversation.started", session_id="a", timestamp_ms=NOON_MS),
        an_event(session_id="a", timestamp_ms=NOON_MS + HOUR_MS),
        an_event(session_id="b", timestamp_ms=NOON_MS + 2 * HOUR_MS),
        an_event(session_id="b", agent_id="agent-2", timestamp_ms=NOON_MS + 3 * HOUR_MS),
        an_event("tool.called", session_id=None, agent_id=None),
        an_event(session_id="c", timestamp_ms=time.time_ns() // 1_000_000),
    ]
    fill(settings, events)
    settle(settings, 3, dead=[3])
    return settings.outbox_path


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--limit", "2"], [5, 6]),
        (["--limit", "0"], [1, 2, 3, 4, 5, 6]),
        (["--pending"], [4, 5, 6]),
        (["--delivered"], [1, 2]),
        (["--dead"], [3]),
        (["--state", "pending"], [4, 5, 6]),
        (["--state", "delivered", "--limit", "1"], [2]),
        (["--session", "a"], [1, 2]),
        (["--session", "b", "--pending"], [4]),
        (["--agent", "agent-2"], [4]),
        (["--type", "tool.called"], [5]),
        (["--type", "message.logged", "--limit", "0"], [2, 3, 4, 6]),
        (["--since", "2h"], [6]),
        (["--since", "90s"], [6]),
        (["--since", "2026-11-01T14:00+00:00"], [3, 4, 6]),
        (["--since", "2026-11-01T15:00:00+01:00"], [3, 4, 6]),
        (["--since", "2026-11-01T14:00Z"], [3, 4, 6]),
        (["--since", "2999-01-01"], []),
        (["--session", "x' OR '1'='1"], []),
    ],
)
def test_each_filter_narrows_the_list_and_the_newest_come_last(
    path: Path, options: list[str], seqs: list[int]
) -> None:
    """Each alone and together; the newest come last."""
    assert [event["seq"] for event in call_json("--outbox", path, "list", *options)] == seqs


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs a settable time zone")
def test_a_moment_without_an_offset_is_local(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are the times that are shown."""
    monkeypatch.setenv("TZ", "XYZ-05:00")  # five hours ahead of UTC
    time.tzset()
    try:
        found = call_json("--outbox", path, "list", "--since", "2026-11-01T19:00")
        shown = call("--outbox", path, "list").stdout.splitlines()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [event["seq"] for event in found] == [3, 4, 6]
    assert "2026-11-01 17:00:00" in shown[1]


def test_json_has_the_protocols_names(path: Path) -> None:
    """And the state, and what the server said."""
    events = call_json("--outbox", path, "list")
    assert [event["state"] for event in events] == ["delivered"] * 2 + ["dead"] + ["pending"] * 3
    assert events[1]["data"] == {"role": "user", "content": "hé"}
    assert events[0]["timestamp_ms"] == NOON_MS
    names = {"event_id", "seq", "type", "timestamp_ms", "agent_id", "session_id", "user_id"}
    assert names | {"data", "digest", "chain"} <= set(events[0])
    assert (events[2]["dead_code"], events[2]["dead_message"]) == (
        "invalid_event",
        "event 3 is odd",
    )


def test_the_table_has_an_uncut_line_for_each_event(path: Path) -> None:
    """One line an event, nothing cut off for a pipe."""
    lines = call("--outbox", path, "list", "--session", "a").stdout.splitlines()
    assert lines[0].split() == ["seq", "logged", "state", "type", "agent", "session", "event", "id"]
    (first, second) = call_json("--outbox", path, "list", "--session", "a")
    for line, event in ((lines[1], first), (lines[2], second)):
        assert line.split()[0] == str(event["seq"])
        assert line.split()[-1] == event["event_id"]
    assert call("--outbox", path, "list", "--type", "none").stdout == "no such events\n"


def test_many_events_are_read_in_chunks(config: MakeConfig) -> None:
    """The end of a chunk loses nothing and repeats nothing, removed seqs or not."""
    fill(config(), 250)
    seqs = list(range(1, 251))
    for limit in (0, 250, 100, 101):
        found = call_json("--outbox", config().outbox_path, "list", "--limit", limit)
        assert [event["seq"] for event in found] == seqs[-limit:]
    lines = call("--outbox", config().outbox_path, "list", "--limit", "0").stdout.splitlines()
    assert len(lines) == 251


def test_no_cursor_is_open_between_chunks(config: MakeConfig) -> None:
    """A reader that dawdles keeps nobody from resetting the log; later events do not show."""
    fill(config(), 150)
    outbox = Outbox(config())
    with outbox.snapshot() as connection:
        events = browse.select(connection)
        first = next(events)
        outbox.append(an_event())
        with outbox.reading() as other:
            busy, *_ = other.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()
        assert (first.seq, busy, len(list(events))) == (1, 0, 149)
    outbox.close()


@pytest.mark.parametrize("by", ["seq", "event_id"])
def test_show_prints_an_event_by_id_or_seq(path: Path, by: str) -> None:
    """By id or seq: everything there is, and whether it is whole."""
    event = call_json("--outbox", path, "list")[2]
    result = call("--outbox", path, "show", event[by])
    assert result.exit_code == 0
    for value in (event["event_id"], event["digest"], event["chain"], "dead since", "(matches)"):
        assert value in result.stdout
    assert '{\n  "content": "hé",\n  "role": "user"\n}\n' in result.stdout
    assert call_json("--outbox", path, "show", event[by]) == {**event, "digest_ok": True}


@pytest.mark.parametrize("name", ["7", "0", "no-such-id", "9" * 30, "٣"])
def test_what_is_not_there_cannot_be_shown(path: Path, name: str) -> None:
    """Exit code 1 and its name."""
    result = call("--outbox", path, "show", name)
    assert result.exit_code == 1
    assert f"no event {name}" in result.stderr


def test_a_damaged_event_is_shown_as_it_is(config: MakeConfig) -> None:
    """Not JSON any more, of another type even: it is listed, shown and called by its name."""
    fill(config(), 4)
    settle(config(), 3)
    path = config().outbox_path
    outbox = Outbox(config())
    outbox.run(
        lambda transaction: (
            transaction.connection.exec_driver_sql(
                "UPDATE events SET data = '{\"cut', timestamp_ms = 'soon', agent_id = x'ff00' "
                "WHERE seq = 4"
            ).rowcount
        )
    )
    outbox.close()
    shown = call("--outbox", path, "show", 4)
    assert shown.exit_code == 0
    assert "DOES NOT MATCH" in shown.stdout
    assert '{"cut' in shown.stdout
    as_json = call_json("--outbox", path, "show", 4)
    assert (as_json["digest_ok"], as_json["data"], as_json["agent_id"]) == (
        False,
        '{"cut',
        r"b'\xff\x00'",
    )
    assert "soon" in call("--outbox", path, "list").stdout
    assert "the oldest logged soon\n" in call("--outbox", path, "status").stdout


def test_no_event_steers_the_terminal(config: MakeConfig) -> None:
    """Control characters of logged text come out as escapes, in tables, JSON and `show`."""
    evil = "\x1b[2J\x9b2J\u202e[bold]"
    fill(config(), [an_event(agent_id=evil, session_id=evil, data={"content": evil})])
    path = config().outbox_path
    for command in (["list"], ["list", "--json"], ["show", "1"], ["show", "1", "--json"]):
        output = call("--outbox", path, *command).stdout
        assert not set("\x1b\x9b\u202e") & set(output)
        assert "[bold]" in output
    assert json.loads(call("--outbox", path, "show", "1", "--json").stdout)["agent_id"] == evil


def test_a_narrow_terminal_cuts_the_long_columns() -> None:
    """The first ones stay whole, the widest of the others give way."""
    least = [2, 19, 7, 8, 4, 4]
    assert fit([2, 19, 7, 8, 36, 36], least, 200) == [2, 19, 7, 8, 36, 36]
    assert fit([2, 19, 7, 8, 36, 36], least, 80) == [2, 19, 7, 8, 17, 17]
    assert fit([2, 19, 7, 8, 6, 36], least, 60) == [2, 19, 7, 8, 6, 8]
    assert fit([2, 19, 7, 8, 36, 36], least, 20) == [2, 19, 7, 8, 4, 4]


def test_since_reads_dates_as_python_does() -> None:
    """To the millisecond."""
    from tracker.since import Since

    expected = datetime(2026, 11, 1, 12, tzinfo=timezone.utc).timestamp() * 1000
    assert Since().convert("2026-11-01T12:00:00Z", None, None) == expected == NOON_MS
