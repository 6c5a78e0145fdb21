"""What can happen to a device between `pack` and `receipts`, in random order."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.by_hand import Device, Shore
from tracker.events import make_event

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

STEPS = 30


class Voyage:
    """A device, its collector, and all bundles and receipts that were ever made.

    Each public method is something that may happen at any time.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, rng: random.Random) -> None:
        self._folder = folder
        self._rng = rng
        self._shore = Shore(folder / "shore")
        self._device = Device(folder / "device", self._shore.new_key(), patch)
        self._keys = 1
        self._made = 0
        self._bundles: list[Path] = []
        self._receipts: list[Path] = []
        self.log()
        self.set_aside_a_copy()

    def log(self) -> None:
        with self._device.outbox() as outbox:
            for _ in range(self._rng.randrange(1, 20)):
                user = self._rng.choice(["u", "v", None])
                outbox.append(make_event("test.noted", {"text": "x" * 40}, user_id=user))

    def log_what_will_be_rejected(self) -> None:
        with self._device.outbox() as outbox:
            outbox.append(make_event("test.noted", {}, agent_id="a\0b"))

    def erase(self) -> None:
        with self._device.outbox() as outbox:
            outbox.erase(self._rng.choice(["u", "v"]), {})

    def pack(self, *arguments: object) -> None:
        made = self._device.called("pack", "--output", self._new("bundle"), *arguments)
        self._bundles += [self._folder / file for file in made["files"]]

    def pack_in_parts(self) -> None:
        self.pack("--max-bytes", 4_096)

    def unpack(self) -> None:
        if self._bundles:
            self._unpack(self._rng.choice(self._bundles))

    def settle(self) -> None:
        if self._receipts:
            done = self._device.call("receipts", self._rng.choice(self._receipts))
            assert done.exit_code == 0 or "sealed for the API key named" in done.output

    def prune(self) -> None:
        assert self._device.call("prune", "--days", "0").exit_code == 0

    def retry_dead_letters(self) -> None:
        assert self._device.call("dead", "retry", "--all").exit_code == 0

    def discard_dead_letters(self) -> None:
        assert self._device.call("dead", "discard", "--all", "--yes").exit_code == 0

    def set_aside_a_copy(self) -> None:
        shutil.copy(self._device.outbox_path, self._folder / "older")

    def put_back_the_copy(self) -> None:
        for file in self._device.folder.glob("outbox.sqlite3*"):
            if "key" not in file.name:
                file.unlink()
        shutil.copy(self._folder / "older", self._device.outbox_path)

    def change_the_key(self) -> None:
        self._device.api_key = self._shore.new_key()
        if self._rng.random() < 0.5:
            self._shore.revoke(self._keys)
        self._keys += 1

    def check(self) -> None:
        """Check that nothing is marked that is not there, and that the account adds up."""
        assert self._device.delivered() <= set(self._shore.ids())
        account = self._device.account()
        settled = account.delivered + account.dead + sum(account.discarded.values())
        assert account.accepted == account.pending + settled

    def arrive(self) -> None:
        """Bring everything home; a warning of copies is an event that needs another round."""
        for _ in range(4):
            self.pack()
            self._unpack(self._bundles[-1])
            self._device.settle(self._receipts[-1])
            self.check()
        assert self._device.account().pending == 0
        stored = self._shore.ids()
        assert len(stored) == len(set(stored))
        assert self._device.call("verify").exit_code == 0

    def _unpack(self, bundle: Path) -> None:
        done = self._shore.unpack(bundle, self._new("receipts"))
        assert done.exit_code == 0 or "which is revoked" in done.output
        if done.exit_code == 0:
            self._receipts.append(self._folder / f"receipts-{self._made}")

    def _new(self, name: str) -> Path:
        self._made += 1
        return self._folder / f"{name}-{self._made}"


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Each event is there once, and nothing counts as delivered that is not there."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
    voyage = Voyage(tmp_path, monkeypatch, rng)
    often = [voyage.log, voyage.pack, voyage.unpack, voyage.settle]
    seldom = [
        *(voyage.log_what_will_be_rejected, voyage.erase, voyage.pack_in_parts, voyage.prune),
        *(voyage.retry_dead_letters, voyage.discard_dead_letters, voyage.set_aside_a_copy),
        *(voyage.put_back_the_copy, voyage.change_the_key),
    ]
    for _ in range(STEPS):
        rng.choice(rng.choice([often, seldom]))()
        voyage.check()
    voyage.arrive()
