"""Two people look at an outbox while eight processes log, and others prune and erase."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of
from tests.contract.pages.test_figures import figures_of
from tests.support.cli import ROOT, call_json, process, start
from tests.support.settings import quick

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.config import APIConfig

WRITERS, CONVERSATIONS = 8, 60
PAGES = ("", "conversations", "conversations?user=user-3", "delivery", "usage", "agents", "events",
         "events?type=llm.*", "scores", "search?text=order", "health")  # fmt: skip
PROGRAM = """
import sys
from pathlib import Path
from tests.contract.pages.conftest import talk
from tests.support.settings import quick
from tracker import Tracker
from tracker.testing import RecordingDestination
with Tracker(quick(Path(sys.argv[1])), destination=RecordingDestination) as tracker:
    for number in range(int(sys.argv[3])):
        talk(tracker, f"{sys.argv[2]}-{number}", f"user-{number % 9}")
    assert tracker.flush(60).pending == 0
"""


class Viewer(threading.Thread):
    """Somebody who goes through the pages again and again; keeps what was wrong."""

    def __init__(self, link: str, done: threading.Event) -> None:
        super().__init__()
        self._home = link.partition("open?")[0]
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._browser.open(link, timeout=30).close()
        self._done = done
        self.looks = 0
        self.wrong: list[str] = []

    def look(self, page: str) -> str:
        with self._browser.open(self._home + page, timeout=60) as answer:
            text: str = answer.read().decode()
        return text

    def run(self) -> None:
        accepted = 0
        while not self._done.is_set():
            for page in PAGES:
                try:
                    text = self.look(page)
                except OSError as error:  # an answer that is an error, or none
                    self.wrong.append(f"{page}: {error}")
                    continue
                if page == "":
                    found = figures_of(text)
                    if not accepted <= found["accepted"] == self._sum(found):
                        self.wrong.append(f"after {accepted} accepted: {found}")
                    accepted = found["accepted"]
                self.looks += 1

    @staticmethod
    def _sum(found: dict[str, int]) -> int:
        return sum(found.get(name, 0) for name in ("delivered", "pending", "dead", "discarded"))


@pytest.mark.slow
def test_a_crowd_sees_no_error_and_no_old_account(tmp_path: Path) -> None:
    """The account never goes back and always adds up; in the end it is that of `status`."""
    config = quick(tmp_path)
    write(config, "first", 1)
    board = start("--outbox", path_of(config), "dashboard")
    done, viewers = threading.Event(), list[Viewer]()
    try:
        assert board.stdout is not None
        link = board.stdout.readline().strip()
        viewers += [Viewer(link, done) for _ in range(2)]
        for viewer in viewers:
            viewer.start()
        writers = [writing(config, str(number), CONVERSATIONS) for number in range(WRITERS)]
        changes = 0
        while any(writer.poll() is None for writer in writers):
            for command in (
                ("prune", "--days", "0"),
                ("erase", f"user-{changes % 9}", "--yes"),
            ):
                code, _, said = process("--outbox", path_of(config), *command)
                # Everything about the user may have been removed just before.
                assert code == 0 or "nothing is stored about the user" in said, said
            changes += 1
        assert [writer.wait() for writer in writers] == [0] * WRITERS
        done.set()
        for viewer in viewers:
            viewer.join()
        status = call_json("--outbox", path_of(config), "status")
        assert changes
        for viewer in viewers:
            assert viewer.wrong == []
            assert viewer.looks >= len(PAGES)
            shown = figures_of(viewer.look(""))
            assert {name: shown[name] for name in ("accepted", "delivered", "pending", "dead")} == {
                name: status[name] for name in ("accepted", "delivered", "pending", "dead")
            }
        assert process("--outbox", path_of(config), "verify")[0] == 0
    finally:
        done.set()
        board.terminate()
        for viewer in viewers:
            if viewer.ident is not None:
                viewer.join()
        _, said = board.communicate(timeout=30)
    assert not re.search("Traceback|Error", said), said


def writing(config: APIConfig, name: str, conversations: int) -> subprocess.Popen[bytes]:
    folder = str(config.outbox_path.parent)
    command = [sys.executable, "-c", PROGRAM, folder, name, str(conversations)]
    return subprocess.Popen(command, cwd=ROOT)


def write(config: APIConfig, name: str, conversations: int) -> None:
    assert writing(config, name, conversations).wait(60) == 0
