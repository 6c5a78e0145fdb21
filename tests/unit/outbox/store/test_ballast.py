"""The ballast: room on a full disk for receipts and pruning, created when there is room for it."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest

from tracker.outbox.store.ballast import BALLAST_BYTES, Ballast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    SetFree = Callable[[int], None]

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def ballast(tmp_path: Path) -> Ballast:
    outbox = tmp_path / "outbox.sqlite3"
    outbox.touch()
    return Ballast(outbox)


@pytest.fixture
def set_free(monkeypatch: pytest.MonkeyPatch) -> SetFree:
    """Make the system say that so many bytes of the disk are free."""

    def set_free(free: int) -> None:
        def disk_usage(_path: Any) -> Usage:
            return Usage(1 << 40, (1 << 40) - free, free)

        monkeypatch.setattr(shutil, "disk_usage", disk_usage)

    return set_free


def is_spent(ballast: Ballast) -> bool:
    return ballast.spent  # by a function, or mypy would believe that it cannot change


def test_it_takes_up_at_most_half_of_what_is_free(ballast: Ballast, set_free: SetFree) -> None:
    """On a disk with less, it would itself be what fills it."""
    set_free(2 * BALLAST_BYTES - 1)
    assert ballast.create() is False
    assert not ballast.path.exists()
    set_free(2 * BALLAST_BYTES)
    assert ballast.create() is True
    assert ballast.path.stat().st_size == BALLAST_BYTES >= 1 << 20
    assert ballast.create() is True, "it is there already"


def test_it_is_given_up_once_and_created_again_when_there_is_room(
    ballast: Ballast, set_free: SetFree, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that the disk is full, and once that it is not any more."""
    assert ballast.create()
    with caplog.at_level(logging.INFO, logger="tracker"):
        assert ballast.free() is True
        assert ballast.free() is False, "it is gone already"
        set_free(0)
        assert ballast.create() is False
        assert is_spent(ballast)
        set_free(1 << 30)
        for _ in range(2):
            assert ballast.create() is True
            assert not is_spent(ballast)
            ballast.path.unlink()  # by somebody else
    said = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert said == [
        "the disk is full: the outbox gave up its ballast, so that uploading and pruning can go on",
        "the disk has room again",
    ]


def test_another_process_may_have_created_it_again(ballast: Ballast) -> None:
    """All processes on an outbox share it, and any of them notices that the disk has room."""
    assert ballast.create()
    assert ballast.free()
    ballast.path.touch()
    assert ballast.create() is True
    assert not is_spent(ballast)
