"""Events carried by hand between two machines, while SIGKILL ends every step at random instants."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.by_hand import NO_SERVER, Device, Shore
from tests.support.conversations import ROOT
from tracker.events import make_event
from tracker.sealed.form import BUNDLE, RECEIPTS
from tracker.sealed.reader import Reader
from tracker.sealed.seal import Seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.faults

SYNC, COLLECTOR = "tracker.cli.main", "tracker.collector.main"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, gone with the test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Machine:
    """Runs commands in processes of their own, and kills some of them.

    Args:
        environment: What is set there.
        rng: Draws the instants.
    """

    def __init__(self, environment: Mapping[str, str], rng: random.Random) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._rng = rng
        self._took: dict[str, float] = {}
        self.kills = 0

    def run(self, module: str, *arguments: object) -> None:
        """Run a command to its end, which must be a good one, and remember how long it took."""
        begun = time.monotonic()
        done = subprocess.run(
            self._line(module, arguments), env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self._took[str(arguments[0])] = time.monotonic() - begun

    def kill(self, module: str, *arguments: object) -> None:
        """Run a command and kill it at some instant, unless it has ended before."""
        begun = time.monotonic()
        process = subprocess.Popen(
            self._line(module, arguments),
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        name = str(arguments[0])
        try:
            process.wait(self._took[name] * self._rng.uniform(0.3, 1.0))
            self._took[name] = time.monotonic() - begun
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.kills += 1

    @staticmethod
    def _line(module: str, arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", module, *map(str, arguments)]


def check_whole(path: Path, kind: str, api_key: str) -> None:
    """Check that a file is not there at all, or is there as a whole."""
    if path.exists():
        with path.open("rb") as file:
            Reader(file, kind).check(Seal.of(api_key))


class Courier:
    """A device, a collector, and a stick that is carried between them.

    Each step is killed up to three times, and then done; after each kill it is checked what is
    there. The first of each is not killed: it says how long such a step takes.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, rng: random.Random) -> None:
        self.rng = rng
        self.shore = Shore(folder / "shore")
        self.device = Device(folder / "device", self.shore.new_key(), patch)
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.ids: list[str] = []
        self.receipts: list[Path] = []
        at_sea = {
            "HOME": str(self.device.folder),
            "SDK_API_KEY": self.device.api_key,
            "SDK_CLIENT_ID": "test-client",
            "SDK_BASE_URL": NO_SERVER,
            "SDK_OUTBOX_PATH": str(self.device.outbox_path),
        }
        ashore = {
            "HOME": str(self.shore.folder),
            "COLLECTOR_DATABASE_URL": str(self.shore.database),
        }
        self.sea, self.land = Machine(at_sea, rng), Machine(ashore, rng)

    def pack(self, name: str, kills: int) -> Path:
        made = self.device.folder / name
        command = (SYNC, "pack", "--output", made, "--force")
        for _ in range(kills):
            self.sea.kill(*command)
            self._check_whole(made, BUNDLE)
        self.sea.run(*command)
        return self._carry(made)

    def unpack(self, bundle: Path, kills: int) -> Path:
        made = self.shore.folder / f"receipts-{len(self.receipts)}"
        command = (COLLECTOR, "unpack", bundle, "--receipts", made, "--force")
        for _ in range(kills):
            self.land.kill(*command)
            self._check_whole(made, RECEIPTS)
            stored = self.shore.ids()
            assert len(stored) == len(set(stored)), "an event is stored twice"
        self.land.run(*command)
        self.receipts.append(self._carry(made))
        return self.receipts[-1]

    def settle(self, receipts: Path, kills: int) -> None:
        command = (SYNC, "receipts", receipts)
        for _ in range(kills):
            self.sea.kill(*command)
            self._check_marks()
        self.sea.run(*command)
        self._check_marks()

    def _carry(self, made: Path) -> Path:
        shutil.copy(made, self.stick / made.name)
        return self.stick / made.name

    def _check_whole(self, path: Path, kind: str) -> None:
        """Check that a file is not there at all, or is there as a whole."""
        if path.exists():
            with path.open("rb") as file:
                Reader(file, kind).check(Seal.of(self.device.api_key))

    def _check_marks(self) -> None:
        marked = self.device.delivered()
        assert marked <= set(self.shore.ids()), "what is marked is not there"
        account = self.device.account()
        assert account.accepted == len(self.ids) == account.delivered + account.pending
        assert account.delivered == len(marked)


@pytest.mark.timeout(3_600)
def test_killed_at_any_step_each_event_arrives_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool, tell: Callable[[str], None]
) -> None:
    """Bundles are lost, come twice and late, and so do receipts."""
    rounds, each, most = (40, 250, 5) if full else (2, 250, 2)
    rng = random.Random(13)  # noqa: S311 - repeatable
    courier = Courier(tmp_path, monkeypatch, rng)
    device, shore = courier.device, courier.shore
    courier.ids += device.log(each)
    courier.settle(courier.unpack(courier.pack("first", 0), 0), 0)
    for number in range(rounds):
        courier.ids += device.log(each)
        bundles = [courier.pack(f"bundle-{number}", rng.randrange(1, most))]
        bundles += courier.stick.glob("bundle-*")
        for bundle in rng.sample(bundles, rng.randrange(min(3, len(bundles)))):
            courier.unpack(bundle, rng.randrange(1, most))
        courier.settle(rng.choice(courier.receipts), rng.randrange(1, most))
    courier.settle(courier.unpack(courier.pack("last", 1), 1), 1)
    assert device.delivered() == set(courier.ids)
    assert sorted(shore.ids()) == sorted(courier.ids)
    assert list(shore.report(device.outbox_id()).missing) == []
    assert device.call("verify").exit_code == 0
    kills = courier.sea.kills + courier.land.kills
    assert kills
    tell(f"carried by hand, {kills} kills | {len(courier.ids)} events | 0 lost, each stored once |")


def test_a_full_disk_leaves_no_half_a_file(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a bundle nor receipts; with parts, those that are whole stay, and count."""
    shore = Shore(tmp_path / "shore")
    device = Device(tmp_path / "device", shore.new_key(), monkeypatch)
    ids = device.log(200, size=10)
    with device.outbox() as outbox:
        for _ in range(200):
            outbox.append(make_event("test.noted", {"content": os.urandom(5_000).hex()}))
    full = device.call("pack", "--output", small_disk / "bundle")
    assert (full.exit_code, "No space left" in full.stderr) == (1, True)
    assert list(small_disk.iterdir()) == []
    parts = device.call("pack", "--output", small_disk / "part", "--max-bytes", 300_000)
    assert parts.exit_code == 1
    whole = sorted(small_disk.iterdir())
    assert [path.name for path in whole] == ["part.1", "part.2", "part.3"]
    for path in whole:
        shore.unpacked(path, tmp_path / "receipts")
        device.settle(tmp_path / "receipts")
        path.unlink()
    assert set(ids) <= device.delivered() == set(shore.ids())
    rest = device.pack("rest")
    (small_disk / "hog").write_bytes(bytes(1 << 20))
    refused = shore.unpack(rest, small_disk / "receipts")
    assert (refused.exit_code, "No space left" in refused.output) == (1, True)
    assert [path.name for path in small_disk.iterdir()] == ["hog"]
    shore.unpacked(rest, tmp_path / "receipts")
    device.settle(tmp_path / "receipts")
    assert device.account().pending == 0
