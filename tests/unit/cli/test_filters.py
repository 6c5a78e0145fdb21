"""The filters: every command that lists or sums has all of them, and they do what they say."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import NOON_MS, an_event, call, call_json, fill, settle
from tests.support.settings import quick
from tests.unit.cli.test_help import OWN
from tracker import canonical
from tracker.events import make_event

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.events import Event

FILTERS = {
    *("--since", "--until", "--agent", "--user", "--session", "--last", "--run"),
    *("--type", "--environment", "--release", "--tag"),
}
LISTS = {
    *("list", "tail", "export", "conversations", "unclosed", "metrics", "agents", "usage"),
    "scores",
    "dead list",
    "spans",
}
OTHERS = {
    # Of one event or conversation, or of named ones.
    *("show", "conversation", "trace", "dead retry", "dead discard", "erase", "evidence"),
    # Of the outbox as a whole.
    *(
        "flush",
        "outboxes",
        "status",
        "stats",
        "dashboard",
        "verify",
        "report",
        "doctor",
        "config",
        "run",
        "prune",
        "migrate",
    ),
    *("resend", "rebind", "backup", "restore", "path", "pack", "receipts"),
}


def test_every_command_that_lists_or_sums_takes_every_filter() -> None:
    """A command is among those, or it is named here as one that has nothing to filter."""
    commands = {" ".join(path): command for path, command in OWN.items()}
    assert set(commands) == LISTS | OTHERS
    for name in LISTS:
        options = {option for param in commands[name].params for option in param.opts}
        assert options >= FILTERS, name


def test_every_table_is_there_for_scripts_and_spreadsheets() -> None:
    """Each list and sum has `--json`, and `--csv` unless it is no table or has its own formats."""
    for path, command in OWN.items():
        name = " ".join(path)
        options = {option for param in command.params for option in param.opts}
        if name in LISTS - {"export"}:
            assert "--json" in options, name
        if name in LISTS - {"export", "tail"}:
            assert "--csv" in options, name


def logged(type: str, context: dict[str, Any] | None, at_ms: int, **more: Any) -> Event:
    encoded = None if context is None else canonical.encode(context)
    data = {"provider": "p", "model": "m", "prompt_tokens": 1, "total_tokens": 1, **more}
    run = data.get("run_id")
    event = make_event(
        type, data, session_id=f"session-{run}", agent_id=f"agent-{run}", user_id=f"user-{run}",
        context=encoded,
    )  # fmt: skip
    event = event._replace(timestamp_ms=at_ms)
    return event._replace(digest=canonical.digest_of(*event))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two conversations of a start, a message and a model call each; the first is all dead."""
    settings = quick(tmp_path_factory.mktemp("filters"))
    contexts = (
        {"environment": "production", "release": "1.4", "tags": {"site": "oslo", "line": "=4"}},
        {"environment": "test", "release": "1.5", "tags": {"site": "bergen"}},
    )
    types = ("conversation.started", "message.logged", "llm.used")
    fill(
        settings,
        [
            logged(type_, context, NOON_MS + number * 3_600_000, run_id=f"{number}-run")
            for number, context in enumerate(contexts)
            for type_ in types
        ],
    )
    settle(settings, 3, dead=[1, 2, 3])
    return settings.outbox_path


FIRST: list[list[str]] = [
    ["--until", "2026-11-01T12:30Z"],
    ["--agent", "agent-0-run"],
    ["--user", "user-0-run"],
    ["--session", "session-0-run"],
    ["--session", "session-0"],
    ["--run", "0-run"],
    ["--run", "0"],
    ["--environment", "production"],
    ["--release", "1.4"],
    ["--tag", "site=oslo"],
    ["--tag", "site=oslo", "--tag", "line==4"],
    ["--until", "2026-11-01T12:30Z", "--release", "1.4", "--tag", "line==4"],
]
SECOND: list[list[str]] = [["--since", "2026-11-01T12:30Z"], ["--last"], ["--tag", "site=bergen"]]


@pytest.mark.parametrize(
    ("options", "number"), [*((each, 0) for each in FIRST), *((each, 1) for each in SECOND)]
)
def test_each_command_finds_what_the_filter_names(
    path: Path, options: list[str], number: int
) -> None:
    """The same events, whichever command looks for them."""
    seqs = [number * 3 + place for place in (1, 2, 3)]
    outbox = ["--outbox", path]
    assert [each["seq"] for each in call_json(*outbox, "list", *options)] == seqs
    assert [each["seq"] for each in call_json(*outbox, "events", *options)] == seqs
    exported = call(*outbox, "export", *options).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in exported] == seqs
    followed = call(*outbox, "tail", "--no-follow", "--json", *options).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in followed] == seqs
    letters = call_json(*outbox, "dead", "list", *options)
    assert [each["seq"] for each in letters] == (seqs if number == 0 else [])
    name = f"{number}-run"
    for command in ("conversations", "unclosed"):
        found = call_json(*outbox, command, *options)
        assert [each["session_id"] for each in found] == [f"session-{name}"]
    assert [each["agent_id"] for each in call_json(*outbox, "agents", *options)] == [
        f"agent-{name}"
    ]
    (usage,) = call_json(*outbox, "usage", "--by", "session", *options)
    assert usage["session"] == f"session-{name}"
    assert call_json(*outbox, "metrics", *options)["messages"] == 1


def test_a_type_is_whole_or_begins(path: Path) -> None:
    """With `.*` at its end, it stands for all that begin so."""
    for given, seqs in (("llm.used", [3, 6]), ("conversation.*", [1, 4]), ("llm", [])):
        found = call_json("--outbox", path, "list", "--type", given)
        assert [each["seq"] for each in found] == seqs
    assert call_json("--outbox", path, "metrics", "--type", "message.logged")["llm_calls"] == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--tag", "oslo"], 2, "'oslo' is not a tag; give a name and a value"),
        (["--tag", "=oslo"], 2, "is not a tag"),
        (["--since", "1h", "--until", "2h"], 2, "--until is before --since"),
        (["--session", "x", "--last"], 2, "give --session or --last, not both"),
        (["--session", "session"], 1, "several ids begin with 'session'"),
        (["--csv", "--json"], 2, "give --json or --csv, not both"),
    ],
)
def test_what_is_no_filter_is_refused(path: Path, options: list[str], code: int, said: str) -> None:
    """In a line that says what would be one; nothing is guessed."""
    refused = call("--outbox", path, "list", *options)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert said in refused.stderr


@pytest.mark.parametrize(
    "command",
    ["list", "conversations", "unclosed", "metrics", "agents", "usage", "scores", "dead list"],
)
def test_no_outbox_has_nothing_that_matches(tmp_path: Path, command: str) -> None:
    """Every filter may be given before anything was logged."""
    options = ["--last", "--run", "x", "--tag", "a=b", "--since", "1d", "--json"]
    shown = call("--outbox", tmp_path / "none.sqlite3", *command.split(), *options)
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)
    assert (found["messages"] if command == "metrics" else len(found)) == 0


def test_csv_is_safe_in_a_spreadsheet(tmp_path: Path) -> None:
    """No text is calculated, no line is broken, and numbers stay numbers."""
    settings = quick(tmp_path)
    names = ["=1+1", "+1", "-1", "@SUM(A1)", 'two\nlines, "quoted"', "plain"]
    fill(settings, [an_event(agent_id=name, session_id=name) for name in names])
    shown = call("--outbox", settings.outbox_path, "list", "--csv").stdout
    assert len(shown.splitlines()) == 1 + len(names)
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [row["agent_id"] for row in rows] == [
        "'=1+1", "'+1", "'-1", "'@SUM(A1)", 'two\\nlines, "quoted"', "plain",
    ]  # fmt: skip
    assert [row["seq"] for row in rows] == [str(number) for number in range(1, 7)]
