"""``tracker-sync dashboard``: one link, on loopback alone, and an end without a complaint."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of, talk
from tests.support.cli import call, start
from tests.support.dashboard import running
from tests.support.settings import quick
from tracker import Tracker
from tracker.cli.beside import paths_in
from tracker.dashboard.folder import EveryOutbox
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.config import APIConfig


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_link_and_ends_well(talked: APIConfig, number: signal.Signals) -> None:
    """The link opens the pages; Ctrl-C and SIGTERM end it with 0 and without a word."""
    process = start("--outbox", path_of(talked), "dashboard")
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/open\?token=[\w-]{43}", link)
        with urllib.request.urlopen(link, timeout=10) as answer:  # noqa: S310 - loopback
            assert answer.status == 200
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stdout, stderr) == (0, "", "")


def test_a_port_that_is_taken_is_said(talked: APIConfig) -> None:
    """In one line."""
    with running(path_of(talked)) as board:
        done = call("--outbox", path_of(talked), "dashboard", "--port", board.port)
    assert done.exit_code == 1
    assert f"127.0.0.1 port {board.port}: Address already in use" in done.output


def test_there_is_no_way_to_listen_elsewhere() -> None:
    """What people said is not for the network."""
    assert call("dashboard", "--host", "0.0.0.0").exit_code == 2  # noqa: S104 - it is refused


def test_other_commands_do_not_load_it(talked: APIConfig) -> None:
    """They start as quickly as before, and work without the extra."""
    code = (
        "import sys; from tracker.cli.main import cli;"
        f"cli(['--outbox', {str(path_of(talked))!r}, 'status'], standalone_mode=False);"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"starlette", "uvicorn", "jinja2", "markupsafe"}
    assert "tracker.pages" not in run.stdout


def test_a_missing_extra_is_named(talked: APIConfig) -> None:
    """With the command that installs it."""
    code = (
        "import sys; sys.modules['jinja2'] = None; from tracker.cli.main import main;"
        f"sys.argv = ['tracker-sync', '--outbox', {str(path_of(talked))!r}, 'dashboard']; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert run.returncode == 2
    assert "pip install 'agent-tracking-sdk[dashboard]'" in run.stderr


def test_all_outboxes_of_a_folder(tmp_path: Path) -> None:
    """The list says of each whether it needs a look; each has its own pages, and new ones come."""
    for name in ("one", "two"):
        made = quick(tmp_path, client_id=f"client-{name}", outbox_path=tmp_path / f"{name}.sqlite3")
        with Tracker(made, destination=RecordingDestination) as tracker:
            talk(tracker, f"session-{name}")
            tracker.flush(10)
    (tmp_path / "notes.sqlite3").write_bytes(b"")
    with running(EveryOutbox(lambda known: paths_in(tmp_path, known))) as board:
        assert board.get("/").headers["location"] == "/outboxes"
        listed = board.get("/outboxes").text
        assert "Every outbox is well." in listed
        assert "client-one" in listed
        assert "client-two" in listed
        page = board.get("/conversations", outbox="two.sqlite3").text
        assert "session-two" in page
        assert "session-one" not in page
        links = re.findall(r'href="(/[^"]*)"', page)
        inside = [link for link in links if not link.startswith(("/static/", "/outboxes"))]
        assert all("outbox=two.sqlite3" in link for link in inside if link != "/")
        assert board.get("/conversations", outbox="../two.sqlite3").status == 404
        assert board.get("/conversations", outbox="notes.sqlite3").status == 404
        (tmp_path / "two.sqlite3").write_bytes(b"SQLite format 3\0" + b"\0" * 4_000)
        assert "It cannot be read" in board.get("/outboxes").text
        assert "1 of 2 outboxes needs a look." in board.get("/outboxes").text
