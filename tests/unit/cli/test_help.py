"""`tracker-sync`: what the help says, and what asking for it costs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.cli import ROOT, call
from tracker.cli.command import Command
from tracker.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator


def all_commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


COMMANDS = dict(all_commands(cli))
OWN = {path: command for path, command in COMMANDS.items() if isinstance(command, Command)}


def test_all_commands_are_there() -> None:
    """Those that the documentation names, and no others."""
    names = [" ".join(path) for path in COMMANDS]
    assert names == [
        *["flush", "outboxes", "status", "dashboard", "list", "show"],
        *["tail", "conversations", "conversation", "spans", "trace", "unclosed", "metrics"],
        *["agents", "usage", "scores", "export", "evidence", "stats"],
        *[
            "dead",
            "dead list",
            "dead retry",
            "dead discard",
            "resend",
            "erase",
            "verify",
            "report",
            "doctor",
            "run",
            "prune",
            "migrate",
            "pack",
            "receipts",
            "rebind",
            "backup",
            "restore",
            "path",
            "config",
            "demo",
        ],
    ]
    assert {" ".join(path) for path in COMMANDS.keys() - OWN.keys()} <= {"dead", "demo"}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_summary_of_one_line(path: tuple[str, ...]) -> None:
    """Short enough to stand whole in the list of commands on a terminal of 80 columns."""
    shown = call(*path, "--help")
    assert shown.exit_code == 0
    summary = COMMANDS[path].get_short_help_str(limit=1000)
    assert 10 < len(summary) <= 64
    assert summary in " ".join(call(*path[:-1], "--help").stdout.split())


@pytest.mark.parametrize("path", OWN, ids=" ".join)
def test_every_command_has_examples_and_exit_codes(path: tuple[str, ...]) -> None:
    """The examples name the command with options it knows, and stand in the help as they are."""
    command = OWN[path]
    shown = call(*path, "--help").stdout
    assert command.examples
    known = {option for param in command.params for option in param.opts} | {"--json"}
    for example in command.examples:
        assert f"  {example}\n" in shown
        assert "tracker-sync" in example
        own_part = example.split("tracker-sync", 1)[1].split("&&")[0].split("|")[0]
        words = own_part.split('"')[0].rstrip(")").split()
        assert {word for word in words if word.startswith("--")} <= known
        assert set(path) <= set(own_part.replace(")", " ").replace('"', " ").split())
    exit_codes = shown.split("Exit codes:\n")[1]
    assert "2" in [line.split()[0] for line in exit_codes.splitlines() if line[2:3].isdigit()]


def test_the_help_says_why_there_is_no_option_for_the_key() -> None:
    """A key among the arguments is visible to all users of the machine."""
    shown = " ".join(call("--help").stdout.split())
    assert "SDK_API_KEY" in shown
    assert "can see the arguments" in shown
    assert not any("api" in option for p in cli.params for option in p.opts)


def test_the_version_is_told() -> None:
    """`--version` tells it."""
    assert call("--version").stdout.startswith("tracker-sync, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["flush", "--timeout", "-1"],
        ["flush", "--timeout", "soon"],
        ["list", "--since", "yesterday-ish"],
        ["list", "--state", "gone"],
        ["list", "--limit", "-1"],
        ["show"],
        ["dead", "retry"],
        ["dead", "retry", "1", "--all"],
        ["dead", "discard"],
        ["prune", "--days", "-1"],
        ["rebind"],
        ["--outbox", "file:x", "status"],
        ["--base-url", "ftp://host", "status"],
        ["--client-id", "", "status"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    """And says what is wrong, without a traceback."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_help_is_quick() -> None:
    """None of what only some commands need is imported for it: rich, requests, alembic."""
    program = (
        "import sys; from tracker.cli.main import cli; cli(['--help'], standalone_mode=False); "
        "sys.exit(','.join({'rich', 'requests', 'alembic'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_shell_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Click's own; it knows the commands that are imported on demand."""
    monkeypatch.setenv("_TRACKER_SYNC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "tracker-sync d")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert call().stdout.split() == ["plain,dashboard", "plain,dead", "plain,doctor", "plain,demo"]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["stauts"], "status"),
        (["conversatons"], "conversations"),
        (["dead", "lst"], "list"),
        (["list", "--pendign"], "--pending"),
        (["verify", "--against-colector"], "--against-collector"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_that_is_meant(
    arguments: list[str], meant: str
) -> None:
    """Commands, those of groups, and options; exit code 2."""
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert "Did you mean" in refused.stderr
    assert meant in refused.stderr
