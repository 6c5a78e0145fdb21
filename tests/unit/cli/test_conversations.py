"""`tracker-sync conversations`, `conversation` and `unclosed`."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.support.cli import NOON_MS, an_event, call, call_json, fill
from tests.support.settings import quick
from tracker import Tracker
from tracker.cli.main import cli
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

COMMANDS = ("conversations", "unclosed")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversation that ended, one that failed, one open since long, one open just now."""
    settings = quick(tmp_path_factory.mktemp("conversations"))
    now = time.time_ns() // 1_000_000
    answer = {
        "role": "agent",
        "content": "Line one.\nLine two.",
        "response_time_ms": 1250.5,
        "tokens_used": 1234,
        "model": "model-1",
    }
    tool = {"name": "find", "arguments": {"id": 7}, "result": "sent", "duration_ms": 12.5}
    broken = {"name": "find", "arguments": [], "error": "no such order"}
    end = {"quality_score": 4.5, "outcome": "resolved"}
    fill(
        settings,
        [
            an_event("conversation.started", session_id="a", data={}),
            an_event(session_id="a", data={"role": "user", "content": "Where?"}),
            an_event("tool.called", session_id="a", data=tool),
            an_event("tool.called", session_id="a", data=broken),
            an_event(session_id="a", data=answer),
            an_event("conversation.ended", session_id="a", timestamp_ms=NOON_MS + 65_000, data=end),
            an_event("conversation.failed", session_id="b", agent_id="agent-2"),
            an_event(session_id="c"),
            an_event(session_id="d", timestamp_ms=now),
        ],
    )
    return settings.outbox_path


@pytest.mark.parametrize(
    ("options", "sessions"),
    [
        ([], ["a", "b", "c", "d"]),
        (["--limit", "2"], ["c", "d"]),
        (["--limit", "0"], ["a", "b", "c", "d"]),
        (["--status", "open"], ["c", "d"]),
        (["--status", "failed"], ["b"]),
        (["--agent", "agent-2"], ["b"]),
        (["--user", "nobody"], []),
        (["--since", "2h"], ["d"]),
        (["--until", "2h"], ["a", "b", "c"]),
    ],
)
def test_each_filter_narrows_the_list(path: Path, options: list[str], sessions: list[str]) -> None:
    """Each narrows the list; the one that began last comes last."""
    found = call_json("--outbox", path, "conversations", *options)
    assert [conversation["session_id"] for conversation in found] == sessions


def test_the_table_has_a_line_for_each_conversation(path: Path) -> None:
    """A line for each, with its figures."""
    lines = call("--outbox", path, "conversations").stdout.splitlines()
    assert lines[0].split()[:4] == ["began", "status", "messages", "tools"]
    assert lines[1].split()[2:] == ["ended", "2", "2", "1,234", "4.5", "agent-1", "a"]
    shown = call("--outbox", path, "conversations", "--user", "nobody")
    assert (shown.exit_code, shown.stdout) == (0, "no such conversations\n")


def test_csv_is_read_back(path: Path) -> None:
    """By any reader of CSV, under the names that JSON has."""
    rows = list(
        csv.DictReader(io.StringIO(call("--outbox", path, "conversations", "--csv").stdout))
    )
    (as_json, *_) = call_json("--outbox", path, "conversations")
    assert len(rows) == 4
    assert rows[0] == {name: "" if value is None else str(value) for name, value in as_json.items()}


@pytest.mark.parametrize(
    ("options", "sessions"),
    [([], ["c", "d"]), (["--idle", "1h"], ["c"]), (["--agent", "agent-2"], [])],
)
def test_unclosed_lists_open_and_idle_conversations(
    path: Path, options: list[str], sessions: list[str]
) -> None:
    """Those that are open; with --idle only those in which nothing happens any more."""
    found = call_json("--outbox", path, "unclosed", *options)
    assert [conversation["session_id"] for conversation in found] == sessions


def test_when_all_are_closed_it_says_so(path: Path) -> None:
    """And exits with 0."""
    shown = call("--outbox", path, "unclosed", "--agent", "agent-2")
    assert (shown.exit_code, shown.stdout) == (0, "all conversations are closed\n")


def test_a_transcript_has_everything_in_order_and_no_colour_for_a_pipe(path: Path) -> None:
    """Times, tokens, texts and tool calls, in order, without colour for a pipe."""
    shown = call("--outbox", path, "conversation", "a")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    parts = [
        "a: agent-1 and unknown user",
        "ended, outcome resolved, quality 4.5, 2 messages, 2 tool calls, 1,234 tokens, 1 min 5 s",
        "user  ",
        "    Where?",
        "tool find",
        "12 ms",
        '    {"id": 7}',
        "    → sent",
        "    failed: no such order",
        "agent  ",
        "1,250 ms  1,234 tokens  model-1",
        "    Line one.\n    Line two.\n",
    ]
    positions = [shown.stdout.find(part) for part in parts]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"error_type": "OSError", "error_message": "no\nway\x1b"},
            "    OSError: no\n    way\\x1b\n",
        ),
        ({"error_message": "gone"}, "    gone\n"),
        ({"erased": True}, ""),
    ],
)
def test_a_transcript_ends_with_why_it_failed(
    config: MakeConfig, data: dict[str, Any], said: str
) -> None:
    """As long as it counts as failed."""
    fill(config(), [an_event(), an_event("conversation.failed", data=data)])
    show = ["--outbox", config().outbox_path, "conversation", "session-1"]
    shown = call(*show).stdout
    assert shown.startswith("session-1: ")
    failed = shown.split("\n\n")[-1]
    assert failed.startswith("failed  2026-11-01")
    assert failed.split("\n", 1)[1] == said
    assert "error_message" not in call(*show, "--no-content").stdout
    fill(config(), [an_event("conversation.resumed")])
    assert "failed" not in call(*show).stdout


def test_a_terminal_gets_colour(path: Path) -> None:
    """A role has its own, a failed call is red."""
    arguments = ["--outbox", str(path), "conversation", "a"]
    shown = CliRunner().invoke(cli, arguments, color=True).stdout
    assert "\x1b[32m\x1b[1muser" in shown
    assert "\x1b[36m\x1b[1magent" in shown
    assert "\x1b[31m    failed: no such order" in shown


def test_without_content_a_transcript_says_who_and_when_only(path: Path) -> None:
    """Who, when and how much, but not what."""
    shown = call("--outbox", path, "conversation", "a", "--no-content").stdout
    assert "1,234 tokens" in shown
    assert "tool find" in shown
    for said in ("Where?", "Line one", "sent", "no such order", '"id"'):
        assert said not in shown


def test_a_transcript_as_json(path: Path) -> None:
    """All there is; --limit takes the newest."""
    found: dict[str, Any] = call_json("--outbox", path, "conversation", "a", "--limit", "2")
    broken, answer = found["history"]
    assert (found["status"], found["messages"]) == ("ended", 2)
    assert broken["tool_call"]["error"] == "no such order"
    assert (answer["role"], answer["response_time_ms"]) == ("agent", 1250.5)


def test_what_is_not_there_cannot_be_shown(path: Path, tmp_path: Path) -> None:
    """Exit code 1, whether the conversation or the outbox is missing."""
    missing = call("--outbox", path, "conversation", "z\x1b")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert r"no conversation z\x1b" in missing.stderr
    assert call("--outbox", tmp_path / "none.sqlite3", "conversation", "a").exit_code == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_without_an_outbox_there_are_none(tmp_path: Path, command: str) -> None:
    """Nothing was logged yet: that is no failure."""
    shown = call("--outbox", tmp_path / "none.sqlite3", command)
    assert shown.exit_code == 0
    assert "nothing was logged" in shown.stdout
    assert call_json("--outbox", tmp_path / "none.sqlite3", command) == []
    assert not (tmp_path / "none.sqlite3").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_one_format_at_a_time(path: Path, command: str) -> None:
    """Two are wrong use."""
    assert call("--outbox", path, command, "--json", "--csv").exit_code == 2


def test_no_event_steers_the_terminal(config: MakeConfig) -> None:
    """Control characters of logged text come out as escapes, erased data as such."""
    evil = "\x1b[2J\x9b2J\u202e"
    fill(
        config(),
        [
            an_event(session_id="s", agent_id=evil, data={"role": evil, "content": evil}),
            an_event("tool.called", session_id="s", data={"name": evil, "arguments": evil}),
            an_event(session_id="s", data={"erased": True}),
        ],
    )
    path = config().outbox_path
    commands = [["conversations"], ["conversations", "--csv"], ["conversation", "s"], ["unclosed"]]
    for command in commands:
        shown = call("--outbox", path, *command)
        assert shown.exit_code == 0
        assert not set("\x1b\x9b\u202e") & set(shown.stdout)
    assert "(erased)" in call("--outbox", path, "conversation", "s").stdout


def test_open_has_one_meaning(config: MakeConfig) -> None:
    """A conversation without a start, or of tool calls alone, is open wherever open ones show."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        talk = tracker.performance
        for session in ("started", "ended", "resumed"):
            talk.start_conversation("agent-1", session_id=session)
        talk.end_conversation("ended")
        talk.record_failed_session("resumed", "broke")
        talk.resume_conversation("resumed")
        talk.log_user_message("only a message", "hello")
        talk.log_tool_call("only a tool call", "find", {})
        tracker.operations.log_activity("agent-2", "idling", session_id="no conversation")
        unclosed = tracker.security.get_unclosed_sessions(older_than=0)
        named = {whole.session_id for whole in talk.list_conversations(status="open")}
        assert talk.get_metrics().open == len(named) == 4
        assert {each.session_id for each in unclosed} == named
    path = config().outbox_path
    assert len(call_json("--outbox", path, "unclosed")) == 4
    assert call("--outbox", path, "unclosed", "--idle", "2h").stdout == (
        "4 conversations are open, none of them idle for so long\n"
    )


def test_an_agent_of_which_only_conversations_are_known_is_shown(config: MakeConfig) -> None:
    """It was heard of, without a status."""
    fill(config(), [an_event("conversation.started", agent_id="talker")])
    (found,) = call_json("--outbox", config().outbox_path, "agents")
    assert (found["agent_id"], found["status"]) == ("talker", None)


def test_a_failed_conversation_is_shown_with_its_traceback(config: MakeConfig) -> None:
    """In the transcript and in JSON; not without content."""
    settings = config()
    with (
        Tracker(settings) as tracker,
        pytest.raises(ZeroDivisionError),
        tracker.conversation("agent") as c,
    ):
        c.user(str(1 / 0))
    shown = call("--outbox", settings.outbox_path, "conversation", "--last").stdout
    assert "ZeroDivisionError: division by zero" in shown
    assert "    Traceback (most recent call last):" in shown
    assert "c.user(str(1 / 0))" in shown
    said = call_json("--outbox", settings.outbox_path, "conversation", "--last")["failure"]
    assert said["error_type"] == "ZeroDivisionError"
    assert said["traceback"].endswith("ZeroDivisionError: division by zero")
    bare = call("--outbox", settings.outbox_path, "conversation", "--last", "--no-content").stdout
    assert "Traceback" not in bare
