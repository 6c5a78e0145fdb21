"""Commands that read work where nothing can be written, and leave no trace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.migration.test_schema import FIXTURES, restore
from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Answers: TypeAlias = "list[tuple[int, str, str]]"
    """Exit code, stdout and stderr of each command."""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and become another user"),
]

USER = 54321
SESSION = "session-1"
EVENTS = 20
READING = [
    ["status"],
    ["list", "--json", "--limit", "0"],
    ["show", "1"],
    ["conversations"],
    ["conversation", SESSION],
    ["unclosed", "--idle", "1h"],
    ["metrics"],
    ["agents"],
    ["usage"],
    ["stats"],
    ["export"],
    ["verify"],
    ["tail", "--no-follow"],
    ["dead", "list"],
    ["path"],
]
WRITING = [
    ["prune"],
    ["migrate"],
    ["rebind", "--client-id", "other"],
    ["erase", "user-1", "--yes"],
    ["dead", "retry", "--all"],
    ["flush", "--timeout", "0.1"],
]

APPLICATION = """
import os, sys
from tracker import AgentPerformanceTracker, APIConfig
tracker = AgentPerformanceTracker(APIConfig(
    api_key="k", client_id="kiosk", base_url="http://127.0.0.1:9", outbox_path=sys.argv[1],
    exit_timeout=0))
for _ in range(20):
    tracker.log_user_message("session-1", "Hello")
if sys.argv[2] == "closed":
    tracker.close()
    sys.exit()
elif sys.argv[2] == "live":
    tracker.flush(timeout=2)  # it has the upload lock then
    print("ready", flush=True)
    sys.stdin.read()
os._exit(9)
"""

# What the commands import is imported before this becomes the user, who may be forbidden to.
COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from tracker.cli.main import cli
from tracker.outbox.schema import create
create.known_revisions()
warm, path, user, commands = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
for command in commands if user else ():
    CliRunner().invoke(cli, ["--outbox", warm, *command])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
ran = []
for command in commands:
    result = CliRunner().invoke(cli, ["--outbox", path, *command])
    if not isinstance(result.exception, (SystemExit, type(None))):
        raise result.exception
    ran.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(ran))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def log(path: Path, how: str) -> None:
    subprocess.run([sys.executable, "-c", APPLICATION, path, how], cwd=ROOT, check=False)
    assert path.exists()


def commands(place: Path, path: Path, user: int, which: list[list[str]]) -> list[str]:
    """Return the command line of a process that runs commands on the outbox as a user."""
    return [
        sys.executable,
        "-c",
        COMMANDS,
        str(place / "warm.sqlite3"),
        str(path),
        str(user),
        json.dumps(which),
    ]


def ran(*command: str) -> Answers:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SDK_API_KEY": "k"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: Answers = json.loads(done.stdout)
    return answers


def on_read_only_mount(place: Path, path: Path, which: list[list[str]]) -> Answers:
    """Run commands where the outbox's folder is mounted for reading only."""
    mount = place / "mounted"
    mount.mkdir(exist_ok=True)
    script = 'mount --bind "$0" "$1" && mount -o remount,ro,bind "$0" "$1" && shift && exec "$@"'
    command = commands(place, mount / path.name, 0, which)
    return ran("unshare", "-m", "sh", "-c", script, str(path.parent), str(mount), *command)


def as_another_user(place: Path, path: Path, which: list[list[str]]) -> Answers:
    """Run commands as a user who may read the outbox's files and nothing more."""
    for file in path.parent.iterdir():
        file.chmod(0o644)
    log(place / "warm.sqlite3", "killed")
    return ran(*commands(place, path, USER, which))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def left_as(place: Path, state: str) -> Path:
    """Return an outbox that an application left in some state, or somebody copied."""
    folder = place / "card"
    folder.mkdir(mode=0o755)
    path = folder / "outbox.sqlite3"
    log(path, "closed" if state in ("closed", "file only") else "killed")
    assert path.with_name("outbox.sqlite3-wal").exists() == (state not in ("closed", "file only"))
    if state == "copied without index":
        path.with_name("outbox.sqlite3-shm").unlink()
    if state == "file only":
        for file in folder.iterdir():
            file.unlink() if file != path else None
    return path


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "sh", "-c", "mount --bind /tmp /tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("state", ["closed", "killed", "copied without index", "file only"])
@pytest.mark.parametrize("forbidden", [on_read_only_mount, as_another_user])
def test_reading_where_nothing_can_be_written(
    place: Path, state: str, forbidden: Callable[[Path, Path, list[list[str]]], Answers]
) -> None:
    """Every event is read, whatever the application left in the log; no byte of a file changes.

    Commands that would write say in one line that they cannot.
    """
    if forbidden is on_read_only_mount and not can_mount():
        pytest.skip("mounts are not allowed here")
    path = left_as(place, state)
    before = contents(path.parent)
    answers = forbidden(place, path, READING + WRITING)
    for command, (code, stdout, stderr) in zip(READING, answers, strict=False):
        assert code == 0, (command, stdout, stderr)
    assert answers[1][1].count('"event_id"') == EVENTS
    assert answers[10][1].count('"event_id"') == EVENTS
    for command, (code, _, stderr) in zip(WRITING, answers[len(READING) :], strict=True):
        assert code == 1, command
        assert "cannot be opened for writing" in stderr, command
        assert len(stderr.splitlines()) == 1
    assert contents(path.parent) == before


def test_reading_another_users_outbox_while_it_is_in_use(place: Path) -> None:
    """What is committed is read, the uploader is seen, and the application goes on."""
    folder = place / "data"
    folder.mkdir()
    path = folder / "outbox.sqlite3"
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, path, "live"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert application.stdout is not None
        assert application.stdout.readline() == b"ready\n"
        folder.chmod(0o777)
        answers = as_another_user(place, path, READING)
        assert application.poll() is None
    finally:
        application.kill()
        application.communicate()
    assert [code for code, _, _ in answers] == [0] * len(READING)
    assert answers[1][1].count('"event_id"') == EVENTS
    assert "running" in answers[0][1]
    assert "not running" not in answers[0][1]
    assert {file.stat().st_uid for file in folder.iterdir()} == {0}


def test_an_older_outbox_that_cannot_be_migrated_where_it_is(place: Path) -> None:
    """One line says what to do; where only whose it is was asked for, that is answered."""
    folder = place / "card"
    folder.mkdir()
    path = folder / "outbox.sqlite3"
    restore(min(FIXTURES.glob("outbox_*")), path)
    before = contents(folder)
    (code, _, stderr), (path_code, shown, _) = as_another_user(place, path, [["list"], ["path"]])
    assert (code, path_code) == (1, 0)
    assert "copy it" in stderr
    assert len(stderr.splitlines()) == 1
    assert shown.strip() == str(path)
    assert contents(folder) == before


def test_a_backup_of_a_read_only_outbox(place: Path, tmp_path: Path) -> None:
    """What a saved card holds becomes a backup, log included, and that an outbox."""
    path = left_as(place, "copied without index")
    copy, outbox = tmp_path / "copy.sqlite3", tmp_path / "new.sqlite3"
    if not can_mount():
        pytest.skip("mounts are not allowed here")
    (answer,) = on_read_only_mount(place, path, [["backup", str(copy)]])
    assert answer[0] == 0, answer
    (restored, listed) = ran(
        *commands(place, outbox, 0, [["restore", str(copy)], ["list", "--json", "--limit", "0"]])
    )
    assert restored[0] == 0, restored
    assert listed[1].count('"event_id"') == EVENTS
