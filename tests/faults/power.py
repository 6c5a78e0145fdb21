"""A disk that loses power: an ext4 image behind a loop device, copied while its writer is stopped.

What the writer wrote and did not sync is in the page cache of the mounted file system, not in the
image. So a copy of the image is what a power cut at that moment leaves.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 50
_STOP_SECONDS = 10.0


@functools.cache
def why_not() -> str | None:
    """Say why this machine cannot mount an image; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting an image needs root on Linux"
    if not shutil.which("mkfs.ext4"):
        return "mkfs.ext4 (e2fsprogs) is not installed"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return None


def make_image(path: Path, megabytes: int) -> None:
    """Make an empty ext4 image."""
    with path.open("wb") as image:
        image.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)


@contextlib.contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an image, and unmount it in the end."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, where], check=True)
    try:
        yield where
    except BaseException:
        subprocess.run(["umount", "--lazy", where], check=True)  # the traceback may hold files
        raise
    subprocess.run(["umount", where], check=True)


def stop(group: int) -> None:
    """Stop a process group, and return when every thread stands still, its last sync over."""
    _signal(group, signal.SIGSTOP, "TZ")


def kill(group: int) -> None:
    """Kill a process group, and return when none of it has a file open any more."""
    _signal(group, signal.SIGKILL, "Z")


def _signal(group: int, number: int, until: str) -> None:
    """Signal a process group, and return when each of its threads is in one of these states."""
    tasks = list(_tasks(group))
    os.killpg(group, number)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(_state(task) not in until for task in (*tasks, *_tasks(group))):
        assert time.monotonic() < deadline, "the writer does not stop"
        time.sleep(0.001)


def _tasks(group: int) -> Iterator[Path]:
    """Yield the threads of a process and of the children that its main thread has forked."""
    tasks = Path(f"/proc/{group}/task")
    for pid in (group, *map(int, (tasks / str(group) / "children").read_text().split())):
        with contextlib.suppress(FileNotFoundError):  # it has ended
            yield from Path(f"/proc/{pid}/task").iterdir()


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def copy_at_rest(image: Path, mount: Path, copy: Path) -> None:
    """Copy the image of a mounted file system, such as it was at one moment.

    The kernel may write on by itself; a copy during which it did is thrown away.
    """
    device = mount.stat().st_dev
    counts = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    for _ in range(_TRIES):
        before = _writes(counts)
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        if _writes(counts) == before:
            return
        time.sleep(0.01)
    raise AssertionError("the kernel never stopped writing to the image")


def _writes(counts: Path) -> tuple[str, ...]:
    """Return the device's writes begun and bytes written, once none is under way."""
    for _ in range(1_000):
        # Linux, Documentation/block/stat.rst: fields 4 and 6 are of writes, 8 is what is in flight.
        fields = counts.read_text().split()
        if fields[8] == "0":
            return fields[4], fields[6]
        time.sleep(0.001)
    raise AssertionError("writes to the image never end")
