"""Fault 6: whatever the wall clock says, nothing is lost, and order and pauses stay right."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults import oracle
from tests.faults.remote import Device
from tests.faults.wall_clock import WallClock, why_not
from tests.support.collector import CollectorProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

_TEN_YEARS = 3_653 * 86_400
_SINCE_1970 = int(time.time()) - 60
_SLACK = 60.0
"""Seconds, for a slow machine."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path_factory.mktemp("collector")) as process:
        yield process


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def device(
    receiver: CollectorProcess, clock: WallClock, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Device]:
    """A device with that clock; its outbox keeps what was delivered for a week."""
    client = receiver.client(str(abs(hash(request.node.nodeid))))
    settings = {
        "api_key": client.headers["Authorization"].removeprefix("Bearer "),
        "client_id": client.client_id,
        "outbox_path": str(tmp_path / "outbox.sqlite3"),
        "base_url": receiver.url,
        "flush_interval": 0,
        "backoff_base": 0.1,
        "backoff_cap": 0.5,
        "exit_timeout": 0,
    }
    with Device(settings, clock.environment) as running:
        yield running
        assert running.tell("flush", 60)["pending"] == 0
        report = running.tell("report")
    stored = client.events()
    logged = [event for event in stored if event["type"] == "device.noted"]
    assert [(event["event_id"], event["data"]["content"]) for event in logged] == list(
        running.acknowledged.items()
    ), "each once, as it was logged, in order"
    assert [event["seq"] for event in stored] == list(range(1, len(stored) + 1))
    assert [outbox["missing"] for outbox in client.outboxes()] == [[]]
    assert report["alive"]
    assert report["accepted"] == report["delivered"] == len(oracle.logged(stored))


@pytest.fixture
def figures(device: Device, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Print what was tried, in a full run."""

    def say(name: str) -> None:
        tell(f"time | {name} | {len(device.acknowledged)} events | 0 lost")

    return say


def _leap(ahead: int) -> Callable[[WallClock, Device], None]:
    return lambda clock, _: clock.set(ahead)


def _leap_between_runs(ahead: int) -> Callable[[WallClock, Device], None]:
    def leap(clock: WallClock, device: Device) -> None:
        device.stop()
        clock.set(ahead)
        device.start()

    return leap


LEAPS = {
    "ten years on": [_leap(_TEN_YEARS)],
    "ten years back": [_leap(-_TEN_YEARS)],
    "on and back": [_leap(_TEN_YEARS), _leap(0)],
    "back and on": [_leap(-_TEN_YEARS), _leap(0)],
    "on between runs": [_leap_between_runs(_TEN_YEARS)],
    "1970 at boot, then right": [_leap_between_runs(-_SINCE_1970), _leap(0)],
    "1970, then right between runs": [
        _leap_between_runs(-_SINCE_1970),
        _leap_between_runs(0),
    ],
}


@pytest.mark.parametrize("name", LEAPS)
def test_leaps_lose_nothing_and_change_no_order(
    name: str, clock: WallClock, device: Device, full: bool, figures: Callable[[str], None]
) -> None:
    """With a round of retention at each step, which removes delivered events alone."""
    device.log(5)
    assert device.tell("flush", 60)["pending"] == 0
    for _ in range(10 if full else 1):
        for leap in LEAPS[name]:
            leap(clock, device)
            device.tell("prune")
            device.log(5)
            assert device.tell("flush", 60)["pending"] == 0
            device.tell("prune")
    figures(name)


def test_a_clock_that_is_behind_removes_nothing(clock: WallClock, device: Device) -> None:
    """What was delivered before and since stays in the outbox, over a restart too."""
    device.log(5)
    assert device.tell("flush", 60)["pending"] == 0
    for leap in (_leap(-_TEN_YEARS), _leap_between_runs(-_SINCE_1970)):
        leap(clock, device)
        device.tell("prune")
        device.log(5)
        assert device.tell("flush", 60)["pending"] == 0
        device.tell("prune")
        assert device.tell("rows") == len(device.acknowledged)


def test_a_clock_that_steps_back_at_each_look(
    clock: WallClock, device: Device, full: bool, figures: Callable[[str], None]
) -> None:
    """Ids, order and pauses do not need a clock that goes forward."""
    clock.set(0, step_back=1)
    before = device.tell("report")["wall_ms"]
    for _ in range(50 if full else 5):
        device.log(20)
    assert device.tell("flush", 60)["pending"] == 0
    assert device.tell("report")["wall_ms"] < before, "the clock did go back"
    device.tell("prune")
    assert list(device.acknowledged) == sorted(device.acknowledged), "ids sort as they were made"
    figures("a step back of 1 s at each look")


@pytest.mark.parametrize("ahead", [_TEN_YEARS, -_TEN_YEARS], ids=["on", "back"])
def test_a_leap_in_an_outage_changes_no_pause_and_no_timeout(
    receiver: CollectorProcess,
    clock: WallClock,
    device: Device,
    ahead: int,
    figures: Callable[[str], None],
) -> None:
    """A flush ends at its own time, and uploading goes on as soon as the collector is back."""
    receiver.stop()
    try:
        device.log(5)
        before = _wait_for_failures(device, 1)
        clock.set(ahead)
        flushed = device.tell("flush", 1.0)
        # By the clock that leapt, a checkpoint may be due.
        assert flushed["pending"] in (5, 6)
        assert 1.0 <= flushed["seconds"] < 1.0 + _SLACK
        _wait_for_failures(device, before + 2)
        device.tell("prune")
    finally:
        receiver.start()
    flushed = device.tell("flush", 60)
    assert flushed["pending"] == 0
    assert flushed["seconds"] < _SLACK
    figures(f"a leap of {ahead} s in an outage")


def _wait_for_failures(device: Device, count: int) -> int:
    deadline = time.monotonic() + _SLACK
    while (failures := int(device.tell("report")["failures"])) < count:
        assert time.monotonic() < deadline, f"{failures} of {count} attempts in {_SLACK} s"
        time.sleep(0.05)
    return failures


def test_suspend_and_resume(
    clock: WallClock, device: Device, full: bool, figures: Callable[[str], None]
) -> None:
    """A process that was stopped for a while, days by the wall clock, goes on as before."""
    device.log(5)
    assert device.tell("flush", 60)["pending"] == 0
    with _stopped(device):
        clock.set(10 * 86_400)
        time.sleep(5 if full else 0.5)  # as long as it is to be stopped
    device.log(5)
    device.tell("prune")
    figures("suspend and resume")


@contextlib.contextmanager
def _stopped(device: Device) -> Iterator[None]:
    os.kill(device.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(device.pid, signal.SIGCONT)
