"""Fault 5: whatever the network does, every event arrives once, and the device stays calm."""

from __future__ import annotations

import datetime
import gzip
import json
import random
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.faults import oracle
from tests.faults.remote import Device
from tests.support import proxy as faulty
from tests.support.collector import CollectorProcess, free_port
from tests.support.proxy import Proxy, relay
from tests.support.server import ScriptedServer
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.store import ledger
from tracker.sync.http import HTTPDestination
from tracker.sync.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.proxy import Behaviour

pytestmark = pytest.mark.faults

_DAY_SECONDS = 86_400
_HEALING_SECONDS = 60
_MOST_LINES = 2
"""In the log: that uploading fails, and that it works again."""
_MOST_CPU = 0.02
"""Share of a CPU that a device without a collector may use."""


@dataclass
class Scene:
    """What a fault may use: the proxy, and what the device's settings and environment become."""

    proxy: Proxy
    folder: Path
    thief: ScriptedServer
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    heal: Callable[[], None] | None = None
    answers: bool = True
    """False where the fault lets deliveries through, be it late."""
    reaches: bool = True
    """False where the fault leaves the proxy nothing to see."""
    lines: int = _MOST_LINES
    """How many lines the device's log may get."""


def _behaving(behaviour: Behaviour) -> Callable[[Scene], None]:
    return lambda scene: scene.proxy.switch(behaviour)


def _getting_through(behaviour: Behaviour) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.proxy.switch(behaviour)
        scene.answers = False

    return prepare


def _answering(status: str, body: bytes, *headers: str) -> Callable[[Scene], None]:
    return _behaving(faulty.answer_all(status, body, *headers))


def _drip(scene: Scene) -> None:
    scene.proxy.switch(faulty.slow(answer_bytes_per_second=1))
    scene.lines += 1  # the end of the fault cuts an answer off, which is another trouble


def _refuse(scene: Scene) -> None:
    scene.reaches = False
    scene.proxy.refuse()
    scene.heal = scene.proxy.listen


def _blackhole(scene: Scene) -> None:
    scene.reaches = False
    scene.proxy.blackhole()

    def heal() -> None:
        scene.proxy.refuse()
        scene.proxy.listen()

    scene.heal = heal


def _no_names(scene: Scene) -> None:
    while_there = scene.folder / "no-names"
    while_there.touch()
    scene.reaches = False
    scene.environment["DEVICE_FAILS_NAMES_WHILE"] = str(while_there)
    scene.settings |= {
        "base_url": f"http://collector.test:{scene.proxy.port}",
        "allow_insecure_http": True,
    }
    scene.heal = while_there.unlink


def _redirect(scene: Scene) -> None:
    location = f"Location: {scene.thief.url}/v1/events"
    scene.proxy.switch(faulty.answer_all("307 Temporary Redirect", b"", location))


def _proxy_wants_a_password(scene: Scene) -> None:
    scene.settings |= {
        "base_url": "http://collector.test",
        "allow_insecure_http": True,
        "proxies": {"http": f"http://127.0.0.1:{scene.proxy.port}"},
    }
    status = "407 Proxy Authentication Required"
    scene.proxy.switch(faulty.answer_all(status, b"", 'Proxy-Authenticate: Basic realm="x"'))


def _tls(
    ca: trustme.CA, trusted: trustme.CA, scene: Scene, expires: datetime.datetime | None
) -> None:
    def context(of: trustme.CA, until: datetime.datetime | None) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        of.issue_cert("127.0.0.1", not_after=until).configure_cert(made)
        return made

    scene.reaches = False  # the handshake ends before
    bundle = scene.folder / "ca.pem"
    trusted.cert_pem.write_to_path(str(bundle))
    scene.settings |= {
        "base_url": f"https://127.0.0.1:{scene.proxy.port}",
        "ca_bundle": str(bundle),
    }
    scene.proxy.switch(relay, context(ca, expires))
    scene.heal = lambda: scene.proxy.switch(relay, context(trusted, None))


def _wrong_certificate(scene: Scene) -> None:
    _tls(trustme.CA(), trustme.CA(), scene, None)


def _expired_certificate(scene: Scene) -> None:
    ca = trustme.CA()
    _tls(ca, ca, scene, datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1))


_OTHERS_RECEIPT = json.dumps(
    {
        "protocol": 1,
        "first_event_id": "0190b9d4-0000-7000-8000-000000000000",
        "last_event_id": "0190b9d4-0000-7000-8000-000000000001",
        "accepted": 10,
        "duplicates": 0,
        "rejected": [],
    }
).encode()
_JSON = "Content-Type: application/json"

FAULTS: dict[str, Callable[[Scene], None]] = {
    "connection refused": _refuse,
    "blackhole": _blackhole,
    "accepted, never answered": _behaving(faulty.silent),
    "reset in the request": _behaving(faulty.reset_in_request),
    "reset in the receipt": _behaving(faulty.lose_receipt),
    "a byte a second": _drip,
    "1 kB/s": _getting_through(
        faulty.slow(answer_bytes_per_second=1000, request_bytes_per_second=1000)
    ),
    "2 s latency": _getting_through(faulty.slow(latency=2)),
    "30 % fail": _getting_through(faulty.fail_some(0.3, random.Random(7))),  # noqa: S311 - a script
    "no name": _no_names,
    "wrong certificate": _wrong_certificate,
    "expired certificate": _expired_certificate,
    "captive portal": _answering("200 OK", b"<html>Welcome!</html>", "Content-Type: text/html"),
    "proxy's 407": _proxy_wants_a_password,
    "redirect elsewhere": _redirect,
    "other JSON": _answering("200 OK", b'{"ok": true}', _JSON),
    "truncated gzip": _answering(
        "200 OK", gzip.compress(_OTHERS_RECEIPT)[:40], _JSON, "Content-Encoding: gzip"
    ),
    "another batch's receipt": _answering("200 OK", _OTHERS_RECEIPT, _JSON),
    "429 without end": _answering("429 Too Many Requests", b""),
}


_SHORT = {
    "connection refused",
    "blackhole",
    "reset in the receipt",
    "30 % fail",
    "no name",
    "expired certificate",
    "redirect elsewhere",
    "another batch's receipt",
}
"""Those that the short form runs; single answers have tests of their own in tests/contract."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path_factory.mktemp("collector")) as process:
        yield process


@pytest.mark.parametrize("name", FAULTS)
def test_everything_arrives_once_after_any_fault(
    name: str,
    receiver: CollectorProcess,
    tmp_path: Path,
    full: bool,
    tell: Callable[[str], None],
) -> None:
    """Nothing lost, twice or invented; one request a step; a quiet log; a live sync thread."""
    if not full and name not in _SHORT:
        pytest.skip("with --full")
    client = receiver.client(name.replace("%", "percent").replace(" ", "-").replace("/", "-"))
    seconds = 20.0 if full else 0.7
    with ScriptedServer() as thief, Proxy(receiver.port) as proxy:
        scene = Scene(proxy, tmp_path, thief)
        FAULTS[name](scene)
        settings = _settings(scene, client.headers, full) | scene.settings
        with Device(settings, scene.environment) as device:
            device.log(20)
            if scene.answers:
                _await_failure(device)  # with what the first attempt imports behind it
            before = device.tell("report")
            _live(device, seconds)
            during = device.tell("report")
            attempts, harmed = proxy.connections, proxy.harmed
            if scene.answers:
                assert during["pending"] == len(device.acknowledged), "nothing counts as delivered"
            _heal(scene)
            device.log(1)
            assert device.tell("flush", _HEALING_SECONDS)["pending"] == 0
            after = device.tell("report")
        assert thief.requests == [], "neither the key nor an event goes elsewhere"

    _check_receiver(client.events(), client.outboxes(), device.acknowledged)
    assert [during["alive"], after["alive"]] == [True, True]
    assert after["delivered"] == after["accepted"] == len(device.acknowledged)
    assert after["dead"] == 0
    cpu = (during["cpu"] - before["cpu"]) / (during["steady"] - before["steady"])
    if scene.answers:
        assert attempts <= during["failures"] + 1, "a request for each backoff step, no more"
        assert not full or cpu < _MOST_CPU
    assert harmed > 0 or not scene.reaches, "the fault was met"
    assert len(after["log"]) <= scene.lines, after["log"]
    tell(
        f"network | {name} | {len(device.acknowledged)} events, {attempts} connections, "
        f"{during['failures']} failures | 0 lost | {cpu:.2%} CPU, {len(after['log'])} log lines | "
        f"{during['paused_because']}"
    )


def _settings(scene: Scene, headers: dict[str, str], full: bool) -> dict[str, Any]:
    return {
        "api_key": headers["Authorization"].removeprefix("Bearer "),
        "client_id": headers["X-Client-ID"],
        "outbox_path": str(scene.folder / "outbox.sqlite3"),
        "base_url": f"http://127.0.0.1:{scene.proxy.port}",
        "flush_interval": 0,
        "connect_timeout": 2 if full else 0.5,
        "read_timeout": 5,
        "total_timeout": 10 if full else 5,
        "backoff_base": 1 if full else 0.1,
        "backoff_cap": 5 if full else 0.3,
        "exit_timeout": 0,
    }


def _await_failure(device: Device) -> None:
    deadline = time.monotonic() + _HEALING_SECONDS
    while not device.tell("report")["failures"]:
        assert time.monotonic() < deadline, "no attempt failed"
        time.sleep(0.02)


def _live(device: Device, seconds: float) -> None:
    """Log a little now and then, as a device does that is offline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(seconds / 20)  # the length of the fault is what is tried
        device.log(2)


def _heal(scene: Scene) -> None:
    if scene.heal is not None:
        scene.heal()
    else:
        scene.proxy.switch(relay)


def _check_receiver(
    stored: list[dict[str, Any]], outboxes: list[dict[str, Any]], acknowledged: dict[str, str]
) -> None:
    assert [(e["event_id"], e["data"]["content"]) for e in oracle.logged(stored)] == list(
        acknowledged.items()
    ), "each once, as it was logged, in order"
    assert [event["seq"] for event in stored] == list(range(1, len(stored) + 1))
    assert [outbox["missing"] for outbox in outboxes] == [[]]


def test_a_collector_that_is_gone_for_a_day(
    config: MakeConfig, tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """A day of the backoff's own clock: few attempts, and all arrives when it is back.

    The short form has two hours.
    """
    seconds = _DAY_SECONDS if full else _DAY_SECONDS / 12
    server = CollectorProcess(tmp_path, free_port())
    settings = config(
        base_url=server.url,
        api_key=server.api_key,
        backoff_base=1,
        backoff_cap=300,
        total_timeout=5,
    )
    outbox = Outbox(settings)
    for number in range(100):
        outbox.append(make_event("app.noted", {"n": number}))
    now = 0.0
    uploader = Uploader(
        outbox,
        settings,
        HTTPDestination(settings, outbox.owner[0]),
        clock=lambda: now,
    )
    attempts = 0
    while now < seconds:
        now += uploader.step().seconds
        attempts += 1
    assert uploader.failures == attempts
    assert attempts <= 10 + 2 * seconds / 150, "about one in 150 s, half of the longest pause"
    with server:
        for _ in range(3):
            now += uploader.step().seconds
        assert [event["data"]["n"] for event in server.events()] == list(range(100))
    with outbox.reading() as connection:
        assert ledger.read(connection).pending == 0
    uploader.destination.close()
    outbox.close()
    tell(f"network | a day without a collector | {attempts} attempts | 0 lost |")
