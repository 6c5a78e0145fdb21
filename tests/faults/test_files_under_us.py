"""Other programs, users and the host itself at the outbox's files while a tracker has them open."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HOST = """
import json, os, sys, hashlib, shutil, subprocess, threading, time
from tracker import APIConfig, Tracker
path = sys.argv[1]
def tracker():
    return Tracker(APIConfig(api_key="k", client_id="c", base_url="http://127.0.0.1:9",
                             outbox_path=path, durability="process"))
t = tracker()
n = 0
def say(count):
    global n
    ids = []
    for _ in range(count):
        ids.append(t.track("thing.happened", {"n": n})); n += 1
    return ids
def close():
    t.close(timeout=0)
    for thread in threading.enumerate():
        if thread.name == "tracker-sync":
            thread.join(30)  # it closes the outbox where its last step outlasts the call
def read_all():
    for end in ("", "-wal", "-shm", ".lock"):
        hashlib.sha256(open(path + end, "rb").read()).hexdigest()
        shutil.copy(path + end, path + ".kept" + end)
def close_all():
    os.closerange(3, 256)
    files = [os.open(f"{path}.host{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(12)]
    for each in files:
        os.write(each, b"H" * 100_000)
def close_one(end):
    want = os.stat(path + end)
    mine = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
            and os.path.samestat(os.stat(f"/proc/self/fd/{fd}"), want)]
    for fd in mine:
        os.close(fd)
    files = [os.open(f"{path}.host{i}", os.O_RDWR | os.O_CREAT, 0o600) for i in range(len(mine))]
    for each in files:
        os.write(each, b"H" * 100_000)
def load_again():
    for name in [name for name in sys.modules if name.split(".")[0] == "tracker"]:
        del sys.modules[name]
    from tracker import APIConfig as C, Tracker as T
    other = T(C(api_key="k", client_id="c", base_url="http://127.0.0.1:9", outbox_path=path))
    other.track("thing.happened", {"n": -1})
    other.close(timeout=0)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Host:
    """A process that logs, and does what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def do(self, what: str) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the host died of {what}"
        return json.loads(answer)

    def say(self, count: int = 10) -> None:
        ids = self.do(f"say({count})")
        assert isinstance(ids, list)
        self.acknowledged += ids

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self.do("close()")
        self._process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite3"


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], Host]]:
    hosts: list[Host] = []

    def make() -> Host:
        hosts.append(Host(path))
        return hosts[-1]

    yield make
    for each in hosts:
        each.kill()


def stored(path: Path) -> list[str]:
    """Return the event ids at the path, which is sound."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute(
            "SELECT event_id FROM events WHERE type = 'thing.happened' ORDER BY seq"
        )
        return [event_id for (event_id,) in found]
    finally:
        connection.close()


def verified(path: Path) -> bool:
    command = [sys.executable, "-m", "tracker.cli", "--outbox", str(path), "verify"]
    command[1:3] = ["-c", "from tracker.cli.main import main; main()"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0


def open_and_close(path: Path) -> None:
    """Do as any SQLite program does that looks at the outbox and ends."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    code += "print(c.execute('SELECT count(*) FROM pending').fetchall()); c.close()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.DEVNULL)


def other_tracker(path: Path) -> None:
    """Log from another process, which ends."""
    host = Host(path)
    host.say(3)
    host.close()


@pytest.mark.parametrize("end", ["kill", "close"])
@pytest.mark.parametrize("other", [open_and_close, other_tracker])
def test_a_host_may_read_its_outbox_files(
    path: Path, start: Callable[[], Host], other: Callable[[Path], None], end: str
) -> None:
    """What closing a descriptor does to SQLite's locks, another program must not profit from."""
    host = start()
    host.say()
    host.do("read_all()")
    other(path)
    host.say()
    host.do("read_all()")
    other(path)
    getattr(host, end)()
    assert [each for each in stored(path) if each in host.acknowledged] == host.acknowledged
    assert verified(path)


def test_the_log_goes_with_the_last_close(path: Path, start: Callable[[], Host]) -> None:
    """A clean end leaves one database file, whatever the host read meanwhile."""
    host = start()
    host.say()
    host.do("read_all()")
    host.say()
    host.close()
    assert not path.with_name(f"{path.name}-wal").exists()
    assert stored(path) == host.acknowledged


def test_the_package_may_be_loaded_twice(path: Path, start: Callable[[], Host]) -> None:
    """Each copy keeps its own count of what is open; neither costs the other its log."""
    host = start()
    host.say()
    host.do("load_again()")
    open_and_close(path)
    host.say()
    open_and_close(path)
    host.kill()
    assert [each for each in stored(path) if each in host.acknowledged] == host.acknowledged


def unlink(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.moved"))


def replace(path: Path) -> None:
    copy = path.with_name(f"{path.name}.copy")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("companions", [["-wal"], ["-shm"], ["-wal", "-shm"], [".lock"]])
@pytest.mark.parametrize("how", [unlink, rename, replace])
@pytest.mark.parametrize("when", ["busy", "idle"])
@pytest.mark.parametrize("other", [None, open_and_close, other_tracker])
def test_nothing_acknowledged_goes_with_a_file_beside_the_outbox(
    path: Path,
    start: Callable[[], Host],
    companions: list[str],
    how: Callable[[Path], None],
    when: str,
    other: Callable[[Path], None] | None,
    full: bool,
) -> None:
    """Deleted, moved or replaced: noticed, and carried over from the connection that is open."""
    if when == "idle" and other is not None and not full:
        pytest.skip("with --full")
    host = start()
    host.say()
    for companion in companions:
        how(path.with_name(path.name + companion))
    if when == "busy":
        host.say()
    else:
        host.do("time.sleep(2)")
    if other is not None:
        other(path)
    host.say()
    host.kill()
    assert [each for each in stored(path) if each in host.acknowledged] == host.acknowledged
    assert verified(path)


@pytest.mark.parametrize("how", [unlink, rename])
def test_a_closing_tracker_saves_what_only_it_has(
    path: Path, start: Callable[[], Host], how: Callable[[Path], None]
) -> None:
    """The last connection to a deleted log does not close before that is carried over."""
    host = start()
    host.say()
    how(path.with_name(f"{path.name}-wal"))
    host.close()
    assert stored(path) == host.acknowledged


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(
    "close", ["close_all()", "close_one('')", "close_one('-wal')", "close_one('-shm')"]
)
def test_descriptors_that_the_host_closed_are_not_written_to(
    path: Path, start: Callable[[], Host], close: str
) -> None:
    """Their numbers are the host's files now: no byte of those changes, no event is lost."""
    host = start()
    host.say()
    host.do(close)
    host.say()
    host.do("[t.track('big.thing', {'n': 'x' * 50_000}) for _ in range(100)] and None")
    host.say()
    host.close()
    assert stored(path) == host.acknowledged
    assert verified(path)
    theirs = list(path.parent.glob(f"{path.name}.host*"))
    assert theirs
    assert all(each.read_bytes() == b"H" * 100_000 for each in theirs)
