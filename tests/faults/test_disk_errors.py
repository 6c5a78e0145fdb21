"""Disks that fail, turn read-only or are forbidden, and no descriptors left, under a device."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import oracle, power
from tests.faults.remote import Device
from tests.support.collector import CollectorProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.collector import CollectorClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

_SECONDS = 120
_NOBODY = 65_534
_MOST_LINES = 12
"""In the log of a device whose disk fails for a minute or two, again and again."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path_factory.mktemp("collector")) as process:
        yield process


@pytest.fixture
def client(receiver: CollectorProcess, request: pytest.FixtureRequest) -> CollectorClient:
    return receiver.client(str(abs(hash(request.node.nodeid))))


def settings(client: CollectorClient, outbox: Path, **more: Any) -> dict[str, Any]:
    return {
        "api_key": client.headers["Authorization"].removeprefix("Bearer "),
        "client_id": client.client_id,
        "outbox_path": str(outbox),
        "base_url": client.url,
        "flush_interval": 0,
        "backoff_base": 0.1,
        "backoff_cap": 0.3,
        "exit_timeout": 0,
        **more,
    }


def check(client: CollectorClient, device: Device) -> None:
    """See that all that was acknowledged arrived, once and in order, and nothing was invented.

    A call that was refused may have stored its event: whether a failed write landed, nobody knows.
    """
    logged = oracle.logged(client.events())
    stored = {event["event_id"]: event["data"]["content"] for event in logged}
    assert [name for name in stored if name in device.acknowledged] == list(device.acknowledged)
    assert {**stored, **device.acknowledged} == stored
    said = {f"message {n}" for n in range(len(device.acknowledged) + device.refused)}
    assert set(stored.values()) <= said
    assert len(set(stored.values())) == len(stored) <= len(said)
    assert [outbox["missing"] for outbox in client.outboxes()] == [[]]


def under_strace(call: str, error: str, when: str) -> Sequence[str]:
    """Return what runs a command so that some of its system calls fail."""
    inject = f"inject={call}:error={error}:when={when}"
    strace = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", os.devnull)
    return (*strace, "-e", f"trace={call}", "-e", inject)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("on_error", ["degrade", "raise"])
@pytest.mark.parametrize(
    ("call", "error"), [("pwrite64", "EIO"), ("fdatasync", "EIO"), ("pwrite64", "ENOSPC")]
)
def test_writes_and_syncs_fail_for_a_while(
    client: CollectorClient,
    tmp_path: Path,
    call: str,
    error: str,
    on_error: str,
    full: bool,
    tell: Callable[[str], None],
) -> None:
    """Calls follow `on_error`; what was acknowledged arrives, and after the trouble all is well."""
    if not full and call != "fdatasync":
        pytest.skip("with --full")
    given = settings(client, tmp_path / "outbox.sqlite3", on_error=on_error)
    failures, events = (40, 2_000) if full else (15, 60)
    with Device(given) as made:
        made.log(1)
    within = under_strace(call, error, f"20..{20 + failures}")  # of each thread's calls
    with Device(given, within=within) as device:
        device.acknowledged.update(made.acknowledged)
        troubled = 0
        for _ in range(5):
            device.try_to_log(events // 5)
            health = device.tell("health")
            troubled += health["storage_error"] is not None or not health["ok"]
        assert troubled + device.refused, "the fault was met"
        assert on_error == "raise" or device.refused == 0
        _until_well(device)
        device.log(1)
        assert device.tell("flush", _SECONDS)["pending"] == 0
        health, report = device.tell("health"), device.tell("report")
    check(client, device)
    assert report["alive"]
    assert (health["ok"], health["discarded"], health["damaged_sets"]) == (True, {}, [])
    assert len(report["log"]) <= _MOST_LINES, report["log"]
    tell(
        f"disk | {error} on {call}, on_error={on_error} | {len(device.acknowledged):,} events "
        f"acknowledged, {device.refused:,} calls refused | 0 lost | {len(report['log'])} log lines"
    )


def _until_well(device: Device) -> None:
    """Log until the trouble is over: each try uses up some of the failures."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if not device.try_to_log(1) and device.tell("health")["ok"]:
            return
        device.tell("flush", 0.1)
    raise AssertionError(device.tell("health"))


@pytest.mark.skipif(power.why_not() is not None, reason=power.why_not() or "")
def test_the_file_system_turns_read_only(
    client: CollectorClient, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """As ext4 does on an error: calls are refused, the process lives, a restart finds all."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    power.make_image(image, 64)
    with contextlib.ExitStack() as stack:
        stack.enter_context(power.mounted(image, mount))
        given = settings(client, mount / "new" / "outbox.sqlite3", on_error="raise")
        device = stack.enter_context(Device(given))
        device.log(100)
        subprocess.run(["mount", "-o", "remount,abort", mount], check=True)
        assert device.try_to_log(20) == 20
        health, report = device.tell("health"), device.tell("report")
        assert "read" in health["storage_error"].lower()
        assert report["alive"]
        device.kill()
    with power.mounted(image, mount), device:
        device.log(1)
        assert device.tell("flush", _SECONDS)["pending"] == 0
        assert device.tell("health")["ok"]
    check(client, device)
    tell(
        f"disk | turned read-only | {len(device.acknowledged)} acknowledged, {device.refused} "
        f"calls refused | 0 lost | {health['storage_error']}"
    )


def test_no_descriptors_are_left(
    client: CollectorClient, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """Calls go on with what is open, uploading waits; with descriptors again all arrives."""
    with Device(settings(client, tmp_path / "outbox.sqlite3")) as device:
        device.log(5)
        assert device.tell("flush", _SECONDS)["pending"] == 0
        assert device.tell("use_up_descriptors") > 0
        device.log(100)
        device.tell("flush", 1)
        device.log(100)
        alive = device.tell("report")["alive"]
        device.tell("free_descriptors")
        _until_well(device)
        assert device.tell("flush", _SECONDS)["pending"] == 0
        report, health = device.tell("report"), device.tell("health")
    check(client, device)
    assert alive
    assert report["alive"]
    assert (health["discarded"], health["damaged_sets"]) == ({}, [])
    tell(f"disk | no descriptors left | {len(device.acknowledged)} events | 0 lost |")


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user"
)
def test_permission_is_taken_away(
    client: CollectorClient, full: bool, tell: Callable[[str], None]
) -> None:
    """Files that are open stay so; nothing is taken for deleted, and nobody begins anew."""
    folder = Path(tempfile.mkdtemp())  # beneath pytest's own, which is the test's user's alone
    try:
        outbox = folder / "outbox.sqlite3"
        with Device(settings(client, outbox)) as device:
            device.log(5)
        for path in (folder, *folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        with device:
            device.log(5)
            assert device.tell("flush", _SECONDS)["pending"] == 0  # all it needs is imported
            device.tell("become", _NOBODY)
            modes = {path: path.stat().st_mode for path in (folder, *folder.iterdir())}
            for path in modes:
                path.chmod(0)
            device.log(50)
            device.tell("flush", 7 if full else 1)  # the sync thread looks at the file meanwhile
            device.log(50)
            for path, mode in modes.items():
                path.chmod(mode)
            _until_well(device)
            assert device.tell("flush", _SECONDS)["pending"] == 0
            health, report = device.tell("health"), device.tell("report")
        check(client, device)
        assert report["alive"]
        assert (health["discarded"], health["damaged_sets"]) == ({}, [])
        tell(f"disk | permission taken away | {len(device.acknowledged)} events | 0 lost |")
    finally:
        shutil.rmtree(folder)
