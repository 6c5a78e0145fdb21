"""What a program prints that uses the SDK: nothing, a line, or all, as README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.server import error

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import ScriptedServer


def upload(tmp_path: Path, code: str, **environment: str) -> tuple[str, str]:
    """Run a program that logs an event and uploads to a server; return its stdout and stderr."""
    program = (
        "import logging, sys\n"
        "from tracker import APIConfig, Tracker\n"
        "config = APIConfig(api_key='tk_3x4mple_of_a_secret', client_id='-',\n"
        "                   outbox_path='log.sqlite3', backoff_cap=0.05)\n"
        "def upload():\n"
        "    with Tracker(config) as tracker:\n"
        "        tracker.operations.heartbeat('agent_123')\n"
        "        tracker.flush(timeout=0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        timeout=60,
    )
    assert "tk_3x4mple" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def test_nothing_is_printed_unless_logging_is_set_up(tmp_path: Path) -> None:
    """A program whose uploads fail prints nothing; once `logging` is set up, it says why."""
    stdout, stderr = upload(
        tmp_path,
        "upload()\n"
        "print('from now on:', file=sys.stderr)\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "upload()\n",
        SDK_BASE_URL="http://127.0.0.1:9",
    )
    silently, _, loudly = stderr.partition("from now on:")
    assert stdout + silently == ""
    assert ":tracker:" in loudly


def test_a_refused_key_is_one_line_unless_logging_is_set_up(
    tmp_path: Path, scripted_server: ScriptedServer
) -> None:
    """However often it is refused; then it is a record of the log, as ever."""
    scripted_server.script(otherwise=error(401, "unauthorized"))
    _, stderr = upload(tmp_path, "upload()\n", SDK_BASE_URL=scripted_server.url)
    [line] = stderr.splitlines()
    assert line.startswith("tracker: the server refuses the API key")
    assert "Nothing is lost" in line
    assert len(scripted_server.requests) > 1
    _, stderr = upload(
        tmp_path, "logging.basicConfig()\nupload()\n", SDK_BASE_URL=scripted_server.url
    )
    assert [line.split(":")[:2] for line in stderr.splitlines()] == [["WARNING", "tracker"]]


@pytest.mark.parametrize("gone", ["sys.stderr = None", "sys.stderr.close()"])
def test_without_a_stderr_the_program_goes_on(
    tmp_path: Path, scripted_server: ScriptedServer, gone: str
) -> None:
    """As in a daemon, or under `pythonw`: nothing is raised, and the event is there."""
    scripted_server.script(otherwise=error(401, "unauthorized"))
    code = f"{gone}\nupload()\nprint('done')\n"
    stdout, _ = upload(tmp_path, code, SDK_BASE_URL=scripted_server.url, SDK_DEBUG="1")
    assert stdout == "done\n"


@pytest.mark.parametrize("setup", ["", "logging.basicConfig(level=logging.INFO)\n"])
def test_debug_shows_each_line_once(
    tmp_path: Path, scripted_server: ScriptedServer, setup: str
) -> None:
    """With `logging` set up or without."""
    _, stderr = upload(
        tmp_path, f"{setup}upload()\n", SDK_BASE_URL=scripted_server.url, SDK_DEBUG="1"
    )
    assert len(re.findall("log.sqlite3: opened; uploading to http", stderr)) == 1
    assert len(re.findall("a request with 1 events, seq 1 to 1: delivered, after", stderr)) == 1
