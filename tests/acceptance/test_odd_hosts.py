"""Hosts that are set up in odd ways: events are stored, or one error says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tracker
from tests.migration.test_schema import FIXTURES, restore
from tests.support.cli import fill
from tests.support.conversations import ROOT
from tracker.outbox.schema import create, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker import APIConfig

LOG = """
from tracker import *
try:
    with AgentPerformanceTracker(APIConfig(exit_timeout=0)) as tracker:
        tracker.start_conversation("a")
        tracker.get_conversation_history("s")
except TrackerError as error:
    print(type(error).__name__, error)
"""


def environment(path: object = "", **changes: object) -> dict[str, str]:
    """Return an environment in which an application and `tracker-sync` have all they need."""
    settings = {
        "SDK_API_KEY": "k",
        "SDK_CLIENT_ID": "c",
        "SDK_BASE_URL": "http://127.0.0.1:9",
        "SDK_OUTBOX_PATH": path,
        "PYTHONPATH": ROOT,
        **changes,
    }
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def run(
    *arguments: str | bytes,
    settings: dict[str, str],
    flags: tuple[str, ...] = (),
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, *arguments],
        env=settings,
        cwd=os.sep,  # and not where a checkout would be found first
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


EACH = """
import json, os, sys, tempfile
from tracker.cli.main import main
ended = []
for command in json.load(sys.stdin):
    written = [tempfile.TemporaryFile() for _ in range(2)]
    child = os.fork()
    if child == 0:
        for number, file in enumerate(written, 1):
            os.dup2(file.fileno(), number)
        sys.argv[1:] = command
        main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended.append([code, *(os.pread(file.fileno(), 1 << 20, 0).decode() for file in written)])
json.dump(ended, sys.stdout)
"""


def sync_each(
    *commands: list[str | bytes], settings: dict[str, str], flags: tuple[str, ...] = ()
) -> list[tuple[int, str, str]]:
    """Run `tracker-sync` with each of these arguments; return exit codes, stdout and stderr.

    Each in a fork of one interpreter, which takes seconds less than one interpreter for each.
    """
    texts = [[os.fsdecode(argument) for argument in command] for command in commands]
    ran = run("-c", EACH, settings=settings, flags=flags, stdin=json.dumps(texts))
    return [(code, stdout, stderr) for code, stdout, stderr in json.loads(ran.stdout)]


def test_an_older_outbox_is_migrated_by_a_zipped_application(tmp_path: Path) -> None:
    """The migration scripts come out of the zip."""
    archive = tmp_path / "application.pyz"
    package = Path(tracker.__file__).parent
    with zipfile.ZipFile(archive, "w") as zipped, create.scripts_folder() as scripts:
        for folder, name in ((package, "tracker"), (scripts, "tracker/_migrations")):
            for file in folder.rglob("*.py"):
                inside = f"{name}/{file.relative_to(folder)}"
                if inside not in zipped.namelist():  # a wheel has the scripts in its package
                    zipped.write(file, inside)
    path = tmp_path / "outbox.sqlite3"
    fixture = min(FIXTURES.glob("outbox_*"))
    restore(fixture, path)
    with closing(sqlite3.connect(path)) as found:
        client_id, base_url = found.execute("SELECT client_id, base_url FROM identity").fetchone()
    ran = run(
        "-c",
        "import tracker\nassert '.pyz' in tracker.__file__\n" + LOG,
        settings=environment(
            path, SDK_CLIENT_ID=client_id, SDK_BASE_URL=base_url, PYTHONPATH=archive
        ),
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (tables.HEAD,)
        ]


def test_help_is_there_without_docstrings() -> None:
    """``python -OO`` drops docstrings; every command still says what it does."""
    commands: list[list[str | bytes]] = [
        ["--help"],
        ["list", "--help"],
        ["dead", "--help"],
        ["dead", "retry", "--help"],
    ]
    plain = sync_each(*commands, settings=environment())
    assert [code for code, _, _ in plain] == [0] * len(commands)
    assert sync_each(*commands, settings=environment(), flags=("-OO",)) == plain


def test_arguments_that_are_not_utf8_end_in_one_line(config: Callable[..., APIConfig]) -> None:
    """Every command that takes a text says what is wrong with it."""
    path = config().outbox_path
    fill(config())
    odd = b"s\xe9"
    commands: list[list[str | bytes]] = [
        ["conversation", odd],
        ["list", "--agent", odd],
        ["show", odd],
        ["export", "--session", odd],
        ["erase", odd, "--yes"],
        ["--client-id", odd, "rebind"],
        ["conversations", "--agent", odd],
        ["usage", "--by", odd],
        ["dead", "retry", odd],
        ["verify", "--chain-key-file", odd],
        ["export", "--output", b"/nowhere/" + odd],
    ]
    ended = sync_each(*commands, settings=environment(path))
    for arguments, (code, _, stderr) in zip(commands, ended, strict=True):
        assert code in (1, 2), arguments
        assert "Traceback" not in stderr, arguments
        assert stderr.splitlines()[-1].startswith("Error: "), stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(
    not all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(tracker.__file__).parents),
    reason="the package lies where no other user may read",
)
def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    """A container's user without HOME and without an entry in the user database."""
    program = """
import os, sys
import email.utils, encodings.idna, platformdirs
from tracker import AgentPerformanceTracker, APIConfig, ConfigurationError
from tracker.cli.main import cli as sync
from tracker.collector.main import cli as collector
for group in (sync, collector):
    for name in group.list_commands(None):
        group.get_command(None, name)
AgentPerformanceTracker(APIConfig(api_key="k", client_id="c", outbox_path=sys.argv[1])).close(0)
for what in sys.argv[2:]:
    if os.fork() == 0:
        os.dup2(2, 1)
        break
    print("ended:", os.waitstatus_to_exitcode(os.wait()[1]), file=sys.stderr)
else:
    sys.exit()
os.setgroups([]); os.setgid(54321); os.setuid(54321)
del os.environ["HOME"], os.environ["XDG_DATA_HOME"], os.environ["SDK_OUTBOX_PATH"]
if what == "library":
    try:
        APIConfig(api_key="k")
    except ConfigurationError as error:
        sys.exit(f"Error: {error}")
elif what == "collector":
    collector(["keys", "list"])
else:
    sync([what])
"""
    whats = ("library", "status", "doctor", "path", "collector")
    ran = run("-c", program, str(tmp_path / "warm"), *whats, settings=environment("-"))
    said = re.findall(r"(.*?)^ended: (\d+)$", ran.stderr, re.MULTILINE | re.DOTALL)
    assert len(said) == len(whats), ran.stderr
    for what, (text, code) in zip(whats, said, strict=True):
        assert code in ("1", "2"), what
        assert "Traceback" not in text, text
        assert "SDK_OUTBOX_PATH" in text or "COLLECTOR_DATABASE_URL" in text, text


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_named(tmp_path: Path, error: str) -> None:
    """As NFS without its lock daemon, and some FUSE file systems."""
    trace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock"]
    trace += ["-e", f"inject=flock:error={error}", sys.executable, "-c", LOG]
    ran = subprocess.run(
        trace, env=environment(tmp_path / "o.sqlite3"), capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("OutboxError"), ran.stdout + ran.stderr
    assert "set SDK_OUTBOX_PATH" in ran.stdout
