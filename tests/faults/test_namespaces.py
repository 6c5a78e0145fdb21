"""Fault 5, with a network of its own: packets vanish, links go down, and much is lost or late."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.remote import Device
from tests.faults.test_network import _MOST_CPU, _MOST_LINES, _check_receiver
from tests.faults.wire import Wire, why_not
from tests.support.collector import CollectorProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.collector import CollectorClient

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]

_SECONDS = 60
_SILENT_LINES = _MOST_LINES + 1
"""No answer on the open connection, then no new connection: each trouble is told once."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    folder = tmp_path_factory.mktemp("collector")
    with CollectorProcess(folder, arguments=["--host", "0.0.0.0"]) as process:  # noqa: S104
        yield process


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as laid:
        yield laid


@pytest.fixture
def client(receiver: CollectorProcess, request: pytest.FixtureRequest) -> CollectorClient:
    return receiver.client(str(abs(hash(request.node.nodeid))))


@pytest.fixture
def device(
    receiver: CollectorProcess, client: CollectorClient, wire: Wire, tmp_path: Path, full: bool
) -> Iterator[Device]:
    """A device behind the wire; in the end it has delivered everything, once and in order."""
    settings: dict[str, Any] = {
        "api_key": client.headers["Authorization"].removeprefix("Bearer "),
        "client_id": client.client_id,
        "outbox_path": str(tmp_path / "outbox.sqlite3"),
        "base_url": f"http://{wire.address}:{receiver.port}",
        "allow_insecure_http": True,
        "flush_interval": 0,
        "connect_timeout": 1 if full else 0.3,
        "read_timeout": 3 if full else 0.5,
        "total_timeout": 6 if full else 1,
        "backoff_base": 0.5 if full else 0.1,
        "backoff_cap": 2 if full else 0.3,
        "exit_timeout": 0,
    }
    with Device(settings, within=wire.within) as running:
        yield running
        assert running.tell("flush", _SECONDS)["pending"] == 0
        report = running.tell("report")
    _check_receiver(client.events(), client.outboxes(), running.acknowledged)
    assert report["alive"]
    assert report["delivered"] == report["accepted"] == len(running.acknowledged)


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def outage(device: Device, seconds: float) -> tuple[dict[str, Any], float]:
    """Log a little during an outage that was just met; return how the device does, and its CPU."""

    def failing() -> bool:
        device.log(1)  # all that was logged before may have got through
        return bool(device.tell("report")["failures"])

    until(failing)
    before = device.tell("report")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(seconds / 10)  # the length of the outage is what is tried
        device.log(2)
    after: dict[str, Any] = device.tell("report")
    return after, (after["cpu"] - before["cpu"]) / (after["steady"] - before["steady"])


def test_packets_vanish_in_the_midst_of_a_request(
    device: Device, wire: Wire, full: bool, tell: Callable[[str], None]
) -> None:
    """A blackhole on an open connection: nobody says that it is gone."""
    device.log(5)
    assert device.tell("flush", _SECONDS)["pending"] == 0
    passed = wire.passed
    device.log(2_000)  # a second's worth of requests
    until(lambda: wire.passed > passed + 4)
    wire.swallow = True
    report, cpu = outage(device, 20 if full else 1)
    assert report["pending"] > 0
    assert wire.lost > 0
    wire.swallow = False
    assert device.tell("flush", _SECONDS)["pending"] == 0
    log = device.tell("report")["log"]
    tell(
        f"network | packets vanish in a request | {len(device.acknowledged)} events, {wire.lost} "
        f"packets lost, {report['failures']} failures | 0 lost | {cpu:.2%} CPU, "
        f"{len(log)} log lines"
    )
    assert not full or cpu < _MOST_CPU
    assert len(log) <= _SILENT_LINES, log


def test_an_interface_is_down_for_an_outage(
    device: Device, wire: Wire, full: bool, tell: Callable[[str], None]
) -> None:
    """As on a ship out of reach: the system itself says that there is no way."""
    device.log(5)
    assert device.tell("flush", _SECONDS)["pending"] == 0
    wire.link(up=False)
    device.log(50)
    report, cpu = outage(device, 20 if full else 1)
    assert report["pending"] == len(device.acknowledged) - 5
    wire.link(up=True)
    assert device.tell("flush", _SECONDS)["pending"] == 0
    log = device.tell("report")["log"]
    tell(
        f"network | interface down | {len(device.acknowledged)} events, {report['failures']} "
        f"failures | 0 lost | {cpu:.2%} CPU, {len(log)} log lines | {report['paused_because']}"
    )
    assert not full or cpu < _MOST_CPU
    assert len(log) <= _SILENT_LINES, log


@pytest.mark.usefixtures("only_in_full")
def test_packets_are_late_and_lost(device: Device, wire: Wire, tell: Callable[[str], None]) -> None:
    """A fifth of the packets lost, 0.1 s and more of delay, out of order: all arrives, once."""
    wire.loss, wire.delay = 0.2, 0.1
    for _ in range(60):
        device.log(20)
        time.sleep(0.2)  # requests of many sizes, not one
    assert device.tell("flush", 300)["pending"] == 0
    wire.loss = wire.delay = 0.0
    report = device.tell("report")
    tell(
        f"network | a fifth of the packets lost, 0.1 to 0.15 s late | {len(device.acknowledged)} "
        f"events, {wire.lost} of {wire.lost + wire.passed} packets lost, {report['failures']} "
        f"failures | 0 lost | {len(report['log'])} log lines"
    )
    assert wire.lost > 0
