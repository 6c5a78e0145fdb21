"""An outbox has one name, one log and one lock, whatever leads to its folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tracker import OutboxError, Tracker
from tracker.outbox.outbox import Outbox
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


def test_a_second_name_is_refused_when_it_is_opened(config: MakeConfig) -> None:
    """A hard link would have another log and another lock."""
    settings = config()
    Outbox(settings).close()
    other = settings.outbox_path.with_name("other.sqlite3")
    os.link(settings.outbox_path, other)
    for path in (settings.outbox_path, other):
        with pytest.raises(OutboxError, match="2 names"):
            Outbox(config(outbox_path=path))
    other.unlink()
    Outbox(settings).close()


def test_a_second_name_is_refused_as_soon_as_it_is_made(config: MakeConfig) -> None:
    """Nothing is stored until it is gone."""
    settings = config(on_error="raise")
    destination = RecordingDestination()
    with Tracker(settings, destination=lambda: destination) as tracker:
        before = tracker.track("thing.happened", {})
        other = settings.outbox_path.with_name("other.sqlite3")
        os.link(settings.outbox_path, other)
        time.sleep(0.002)  # a look holds for a millisecond
        with pytest.raises(OutboxError, match="2 names"):
            tracker.track("thing.happened", {})
        other.unlink()
        after = tracker.track("thing.happened", {})
        tracker.flush(10)
    ids = [event["event_id"] for event in destination.events]
    assert ids[0] == before
    assert ids[-1] == after


MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None):
    sys.exit(77)
one, other = sys.argv[1:]
open(other, "w").close()
if libc.mount(one.encode(), other.encode(), None, 4096, None):
    sys.exit(77)
from tracker import APIConfig, OutboxError, Tracker
try:
    Tracker(APIConfig(api_key="k", client_id="c", base_url="http://127.0.0.1:9",
                      outbox_path=other))
except OutboxError as error:
    sys.exit("Mount the folder" not in str(error))
sys.exit(1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts as Linux does")
def test_a_file_that_is_mounted_by_itself_is_refused(config: MakeConfig, tmp_path: Path) -> None:
    """As with `docker run -v file:file`: the log would stay in the container."""
    settings = config()
    Outbox(settings).close()
    names = [str(settings.outbox_path), str(tmp_path / "with a space.sqlite3")]
    done = subprocess.run([sys.executable, "-c", MOUNT, *names], check=False)
    if done.returncode == 77:
        pytest.skip("may not mount")
    assert done.returncode == 0


def test_two_folders_of_one_file_share_a_client(config: MakeConfig, tmp_path: Path) -> None:
    """Trackers by a symbolic link to the folder are on the same outbox, in one process."""
    settings = config()
    link = tmp_path / "link"
    link.symlink_to(settings.outbox_path.parent)
    destination = RecordingDestination()
    with (
        Tracker(settings, destination=lambda: destination) as one,
        Tracker(config(outbox_path=link / settings.outbox_path.name)) as other,
    ):
        one.track("by.one")
        other.track("by.other")
        assert other.flush(10).pending == 0
    assert [event["type"] for event in destination.events] == ["by.one", "by.other"]
