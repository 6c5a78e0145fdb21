"""Power loss: what an ext4 disk holds when its writer stops at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults import oracle, power
from tests.faults.victim import Order
from tests.support.conversations import ROOT
from tests.support.server import Answer, Request, ScriptedServer, receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.conftest import MakeConfig

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(power.why_not() is not None, reason=power.why_not() or ""),
]

POINTS_OF_ONE_BOOT = 12
ENOUGH = 5_000
"""Events with durability "process" for which SQLite's log was written back and synced."""
ROLES = ("in_threads", "in_processes", "at_checkpoints", "at_ease")
_CHANCE = random.Random()  # noqa: S311 - instants, not secrets


class Receiver:
    """Keeps what a server acknowledged, in order of arrival, each event once."""

    def __init__(self, server: ScriptedServer) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, dict[str, Any]] = {}
        server.otherwise = self._take

    def _take(self, request: Request) -> Answer:
        with self._lock:
            for event in request.events if request.body else ():
                self._events.setdefault(event["event_id"], event)
        return receipt()(request)

    def events(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._events.values())


class Crash(NamedTuple):
    """What one crash point showed: events acknowledged before it, and how many of them are lost.

    `new` are those acknowledged since the writer's last crash point: each event counts once so.
    """

    acknowledged: int
    lost: Sequence[str]
    new: int
    role: str


class Boot:
    """A writer on a fresh disk, from its start until the last of some crash points."""

    def __init__(
        self, folder: Path, config: MakeConfig, settings: dict[str, Any], role: str
    ) -> None:
        self._folder, self._config, self._role = folder, config, role
        self._settings, self._mount = settings, folder / "disk"
        self._image = folder / "image"
        self._notes = folder / "acknowledged"
        self._complaints = folder / "complaints"
        self._crashes = self._seen = 0

    def crash(self, points: int, server: ScriptedServer, least: int) -> list[Crash]:
        """Crash so many times; after each, what the disk holds is opened and delivered.

        The last time at least so many events are acknowledged, however slow the machine is.
        """
        self._folder.mkdir()
        power.make_image(self._image, 256)
        receiver = Receiver(server)
        with power.mounted(self._image, self._mount):
            writer = self._start()
            try:
                crashes = [self._crash_once(writer, receiver) for _ in range(points - 1)]
                self._await_acknowledged(least, writer)
                return [*crashes, self._crash_once(writer, receiver)]
            finally:
                power.kill(writer.pid)
                writer.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        given = {**self._settings, "outbox_path": str(self._mount / "new" / "outbox.sqlite3")}
        order = Order(self._role, "writer", given, str(self._notes), str(self._complaints))
        command = [sys.executable, "-m", "tests.faults.victim", json.dumps(asdict(order))]
        started = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + 30
        while not (self._mount / "new").exists():  # from here on, its outbox is being made
            assert started.poll() is None, self._complaints.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return started

    def _await_acknowledged(self, least: int, writer: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while len(oracle.acknowledged(self._notes)) < least:
            assert writer.poll() is None, self._complaints.read_text()
            assert time.monotonic() < deadline, "the writer gets nowhere"
            time.sleep(0.01)

    def _crash_once(self, writer: subprocess.Popen[bytes], receiver: Receiver) -> Crash:
        time.sleep(_CHANCE.uniform(0, 0.2))  # the random instant
        power.stop(writer.pid)
        assert not self._complaints.exists(), self._complaints.read_text()
        acknowledged, received = oracle.acknowledged(self._notes), receiver.events()
        self._crashes += 1
        # A name of its own: an older copy that is still mounted in another mount namespace would
        # be mounted once more, with what the kernel remembers of it, under the same name.
        copy = self._folder / f"copy{self._crashes}"
        power.copy_at_rest(self._image, self._mount, copy)
        with power.mounted(copy, self._folder / "after") as after:
            outbox = after / "new" / "outbox.sqlite3"
            config = self._config(**{**self._settings, "outbox_path": outbox})
            oracle.examine(config)
            rest = oracle.deliver_the_rest(config)
        copy.unlink()
        arrived = oracle.merge(received, rest)
        os.killpg(writer.pid, signal.SIGCONT)
        lost = oracle.judge(acknowledged, arrived).lost
        assert_newest(acknowledged, set(lost))
        before, self._seen = self._seen, len(acknowledged)
        return Crash(len(acknowledged), lost, len(acknowledged) - before, self._role)


def assert_newest(notes: Sequence[Mapping[str, Any]], lost: set[str]) -> None:
    """Fail if a writer lost an event and kept one that it said later."""
    losing: set[str] = set()
    for note in notes:  # each writer's own are in the order in which it said them
        if note["id"] in lost:
            losing.add(note["writer"])
        else:
            assert note["writer"] not in losing, f"{note} came after one that is lost"


def crash(
    folder: Path, config: MakeConfig, points: int, durability: str, least: int = 1
) -> list[Crash]:
    """Crash about so many times, over many boots of writers of several kinds.

    At the last crash of the first boot at least so many events are acknowledged; of others, one.
    """
    crashes: list[Crash] = []
    number = 0
    while len(crashes) < points:
        with ScriptedServer() as server:
            settings = {
                "api_key": "k", "client_id": "c", "base_url": server.url, "on_error": "raise",
                "durability": durability, "flush_interval": 0.02,
            }  # fmt: skip
            boot = Boot(folder / str(number), config, settings, ROLES[number % len(ROLES)])
            count = min(points - len(crashes), max(3, min(POINTS_OF_ONE_BOOT, points // 6)))
            crashes += boot.crash(count, server, 1 if number else least)
            number += 1
    return crashes


def test_full_durability_survives_power_loss(
    tmp_path: Path, config: MakeConfig, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """With durability "full", every event acknowledged before a power cut is on the disk."""
    crashes = crash(tmp_path, config, 300 if full else 12, "full")
    lost = [event_id for each in crashes for event_id in each.lost]
    oracle.print_figures(
        full, capsys, "power loss, durability full", crash_points=len(crashes),
        acknowledged=sum(each.new for each in crashes), lost=len(lost),
    )  # fmt: skip
    told = [
        f"{each.role}, crash {number}: {len(each.lost)} of {each.acknowledged} lost"
        for number, each in enumerate(crashes)
        if each.lost
    ]
    assert not told
    heard = {each.role for each in crashes if each.acknowledged}
    assert heard >= set(ROLES if full else ROLES[:2]), "or nothing was tried"


def test_process_durability_costs_the_newest_events_at_most(
    tmp_path: Path, config: MakeConfig, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """With durability "process", a power cut costs events, but only the newest of them."""
    crashes = crash(tmp_path, config, 300 if full else 4, "process", least=ENOUGH)
    lost = [len(each.lost) for each in crashes]
    oracle.print_figures(
        full, capsys, "power loss, durability process", crash_points=len(crashes),
        acknowledged=sum(each.new for each in crashes), lost_over_all_points=sum(lost),
        most_lost_at_once=max(lost), points_with_loss=sum(map(bool, lost)),
    )  # fmt: skip
    assert max(lost) < max(each.acknowledged for each in crashes), "a checkpoint keeps something"
