"""A fleet into a collector, and from there to an OTLP receiver, by processes that are killed."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.test_no_event_lost import kill, run_until, settings
from tests.acceptance.test_otlp import Moody
from tests.support import agent, cli
from tests.support.collector import CollectorClient, CollectorProcess, ForkedCollector
from tests.support.conversations import needs_data
from tests.support.forwarding import ForwardProcess, forward, status
from tests.support.otlp import PROBE, PROTOBUF, attributes, success
from tests.support.received import span_of, traces_request
from tests.support.server import Answer, Request, ScriptedServer
from tests.support.uploads import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_data, pytest.mark.slow]

CONVERSATIONS = 8
PROGRAMS_SPANS = 200


class Kept:
    """What a receiver has stored, by the name of the service, in the order of first arrival.

    Attributes:
        spans: Each span with its resource, by its ids.
        events: The events that they were made of, or else the names of spans.
        differing: How many spans came once more and were others.
    """

    def __init__(self) -> None:
        self.spans: dict[Any, dict[tuple[bytes, bytes], bytes]] = defaultdict(dict)
        self.events: dict[Any, dict[Any, None]] = defaultdict(dict)
        self.differing = 0

    def store(self, request: Request) -> None:
        for group in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            name = attributes(group.resource.attributes).get("service.name")
            for span in group.scope_spans[0].spans:
                if span.name == PROBE:
                    continue
                key = (span.trace_id, span.span_id)
                whole = group.resource.SerializeToString() + span.SerializeToString()
                self.differing += self.spans[name].setdefault(key, whole) != whole
                event = attributes(span.attributes).get("tracker.event.id")
                self.events[name][event or span.name] = None


class MoodyKept(Moody):
    """A receiver that is away now and then, and keeps what it stores."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.kept = Kept()

    def __call__(self, request: Request) -> Answer:
        before = len(self.stored)
        given = super().__call__(request)
        if len(self.stored) > before:
            self.kept.store(request)
        return given


class Killer(threading.Thread):
    """Kills the process that forwards, at random, and starts it again."""

    def __init__(self, database: str, url: str, chance: random.Random) -> None:
        super().__init__(name="killer")
        self._database, self._url, self._chance = database, url, chance
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while not self._over.is_set():
            with ForwardProcess(self._database, self._url) as process:
                assert process.line().startswith("forwarding to")
                self._over.wait(self._chance.uniform(0.01, 1.0))
            self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture(params=["sqlite", "postgresql"])
def collector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CollectorProcess]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    with ForkedCollector(tmp_path, database_url=url, client_id="kiosk-17") as process:
        yield process


@pytest.mark.timeout(300)
def test_a_fleet_arrives_whole_and_as_its_devices_would_have_sent_it(
    collector: CollectorProcess, tmp_path: Path
) -> None:
    """Two devices and a plain program, forwarded by a process that is killed again and again.

    Each event arrives, in each client's order. Then a device sends the same events to another
    receiver itself: its spans and resources are the same to the byte.
    """
    receiver = MoodyKept(random.Random(21))  # noqa: S311 - repeatable, not secret
    other = collector.client("kiosk-18")
    folders = {client.client_id: tmp_path / client.client_id for client in (collector, other)}
    with ScriptedServer() as server:
        server.otherwise = receiver
        killer = Killer(collector.database_url, server.url, random.Random(22))  # noqa: S311 - as above
        killer.start()
        devices = []
        for client in (collector, other):
            folder = folders[client.client_id]
            folder.mkdir()
            environment = {**settings(client, folder), "SDK_BATCH_MAX_EVENTS": "15"}
            devices.append(agent.start(environment, "replay", folder / "notes", CONVERSATIONS))
        program = collector.client("shop")
        for number in range(1, PROGRAMS_SPANS + 1):
            post(program, number)
        for device in devices:
            run_until("finished", device)
            assert device.wait() == 0
            kill(device)
        drain(collector, folders["kiosk-17"])
        drain(other, folders["kiosk-18"])
        wait_until(lambda: killer.kills > 3, "it was killed often enough", timeout=120)
        killer.stop()
        server.otherwise = calm = CalmKept(receiver.kept)
        assert forward(collector.database_url, server.url).exit_code == 0
    kept = calm.kept
    assert kept.differing == 0, "what was sent twice was the same"
    for client in (CollectorClient(collector.url, "kiosk-17", collector.api_key), other):
        arrived = [event["event_id"] for event in client.events()]
        assert list(kept.events[client.client_id]) == arrived
        assert len(arrived) > 100
    names = [f"span {number}" for number in range(1, PROGRAMS_SPANS + 1)]
    assert list(kept.events["program"]) == names
    assert status(collector.database_url)[0]["behind"] == 0
    directly = sent_directly(folders["kiosk-17"], collector)
    assert kept.spans["kiosk-17"].items() <= directly.spans["kiosk-17"].items()


class CalmKept:
    """Stores everything, beside what was stored before."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def __call__(self, request: Request) -> Answer:
        self.kept.store(request)
        return success()(request)


def post(client: CollectorClient, number: int) -> None:
    body = traces_request(span_of(number), resource={"service.name": "program"})
    headers = {**client.headers, **PROTOBUF}
    requests.post(f"{client.url}/v1/traces", body, headers=headers, timeout=10).raise_for_status()


def drain(client: CollectorProcess | CollectorClient, folder: Path) -> None:
    """Upload all that a device has left."""
    done = cli.process("flush", "--timeout", "60", environment=settings(client, folder))
    assert done[0] == 0, done


def sent_directly(folder: Path, collector: CollectorProcess) -> Kept:
    """Return what a device sends to a receiver of its own."""
    with ScriptedServer() as server:
        server.otherwise = calm = CalmKept(Kept())
        environment = settings(collector, folder)
        own = {"SDK_OUTBOX_PATH": environment["SDK_OUTBOX_PATH"], "SDK_CLIENT_ID": "kiosk-17"}
        url = f"otlp+{server.url}"
        for command in (
            ("rebind", "--base-url", url),
            ("resend", "--since", "1d"),
            ("flush", "--timeout", "60"),
        ):
            done = cli.process(*command, environment=own)
            assert done[0] == 0, done
    return calm.kept
