"""Another user's commands on an outbox, root's above all, never lock its application out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import process
from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

USER = 54321


# What it needs is imported before it becomes the user, who may be forbidden to read this Python.
APPLICATION = """
import json, os, sys
from tracker import AgentPerformanceTracker, APIConfig

def opened(path):
    return AgentPerformanceTracker(APIConfig(
        api_key="k", client_id="kiosk", base_url="http://127.0.0.1:9", outbox_path=path,
        on_error="raise", exit_timeout=0))

import encodings.idna
with opened(sys.argv[1]) as tracker:
    tracker.start_conversation("warm")
    tracker.flush(timeout=1)
    tracker.get_metrics()
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.umask(0o077)
tracker = None
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    word, argument = line.split()
    answer = None
    try:
        if word == "open":
            tracker = opened(argument)
        elif word == "log":
            answer = [tracker.start_conversation("a") for _ in range(int(argument))]
        elif word == "close":
            tracker.close(0)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), flush=True)
"""


class Application:
    """A process of another user that logs when it is told to."""

    def __init__(self, folder: Path, user: int = USER) -> None:
        self.path = folder / "data" / "outbox.sqlite3"
        self.logged: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(folder / "warm.sqlite3"), str(user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        assert self._answer() == "ready"

    def _answer(self) -> object:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _tell(self, word: str, argument: object) -> object:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word} {argument}\n")
        self._process.stdin.flush()
        return self._answer()

    def open(self) -> None:
        assert self._tell("open", self.path) is None

    def log(self, count: int = 3) -> None:
        answer = self._tell("log", count)
        assert isinstance(answer, list), answer
        self.logged += answer

    def close(self) -> None:
        assert self._tell("close", "-") is None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def others_files(self) -> list[str]:
        """Return what is in the outbox's folder that the user does not own, or others can read."""
        found = [(file, file.lstat()) for file in self.path.parent.iterdir()]
        return [
            f"{file.name}: uid {status.st_uid}, mode {status.st_mode & 0o777:o}"
            for file, status in found
            if status.st_uid != USER or status.st_mode & 0o077
        ]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def application(place: Path) -> Iterator[Application]:
    home = place / "data"
    home.mkdir(mode=0o700)
    os.chown(home, USER, USER)
    running = Application(place)
    yield running
    running.end()


def sync(path: Path, *arguments: object) -> int:
    environment = {"SDK_API_KEY": "k", "SDK_BASE_URL": "http://127.0.0.1:9", "SDK_CLIENT_ID": ""}
    code, _, stderr = process("--outbox", path, *arguments, environment=environment)
    assert "Traceback" not in stderr
    return code


COMMANDS = [
    ["status"],
    ["list"],
    ["verify"],
    ["prune", "--days", "0"],
    ["migrate"],
    ["flush", "--timeout", "0.2"],
    ["dead", "list"],
    ["doctor"],
    ["unclosed"],
    ["metrics"],
    ["erase", "user-1", "--yes"],
    ["rebind", "--client-id", "kiosk"],
]


def stored(path: Path) -> set[str]:
    code, listed, _ = process("--outbox", path, "list", "--json", "--limit", "0")
    assert code == 0
    return {event["session_id"] for event in json.loads(listed) if event["session_id"]}


def test_roots_commands_while_the_application_logs(application: Application) -> None:
    """Each command, beside an open outbox and between two runs: no call fails, no event is lost."""
    application.open()
    for command in COMMANDS:
        application.log()
        sync(application.path, *command)
        application.log()
        application.close()
        for name in (".lock", ".sync-lock", ".ballast"):
            application.path.with_name(application.path.name + name).unlink(missing_ok=True)
        sync(application.path, *command)  # the first that makes them
        application.open()
        application.log()
        assert application.others_files() == [], command
    application.close()
    assert stored(application.path) >= set(application.logged)
    assert len(application.logged) == 9 * len(COMMANDS)


def test_root_salvages_a_damaged_outbox(application: Application) -> None:
    """The new outbox, and the damaged one aside, are the user's as the old one was."""
    application.open()
    application.log()
    application.close()
    with application.path.open("r+b") as file:
        file.write(bytes(100))
    assert sync(application.path, "list") == 0
    assert any(".damaged-" in file.name for file in application.path.parent.iterdir())
    assert application.others_files() == []
    application.open()
    application.log()
    application.close()
    assert stored(application.path) == set(application.logged)


def test_root_comes_first(application: Application) -> None:
    """What root makes in a user's folder, folders included, is the user's."""
    application.path = application.path.parent / "new" / "deep" / "outbox.sqlite3"
    program = (
        "from tracker import *; t = AgentPerformanceTracker(APIConfig(api_key='k', "
        f"client_id='kiosk', base_url='http://127.0.0.1:9', outbox_path={str(application.path)!r}))"
        "; t.start_conversation('a'); t.close(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    application.open()
    application.log()
    application.close()
    assert application.others_files() == []
    assert stored(application.path) >= set(application.logged)


def test_an_export_that_replaces_a_file_keeps_its_owner(application: Application) -> None:
    """A report that the user has to read stays the user's; a new one is root's alone."""
    application.open()
    application.log()
    application.close()
    report = application.path.parent / "report.jsonl"
    assert sync(application.path, "export", "-o", report) == 0
    assert (report.stat().st_uid, report.stat().st_mode & 0o777) == (0, 0o600)
    os.chown(report, USER, USER)
    report.chmod(0o640)
    assert sync(application.path, "export", "-o", report, "--force") == 0
    assert (report.stat().st_uid, report.stat().st_mode & 0o777) == (USER, 0o640)


def test_a_member_of_the_group_logs_too(application: Application) -> None:
    """Where outbox and folder are the group's, lock files are, too, whoever makes them."""
    application.open()
    application.log()
    application.close()
    folder = application.path.parent
    for file in folder.iterdir():
        file.unlink() if file != application.path else file.chmod(0o660)
    folder.chmod(0o2770)
    assert sync(application.path, "prune") == 0
    beside = [file for file in folder.iterdir() if file != application.path]
    assert beside
    for file in beside:
        status = file.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (USER, USER, 0o660), file
    application.open()
    application.log()
    application.close()
    assert stored(application.path) == set(application.logged)
