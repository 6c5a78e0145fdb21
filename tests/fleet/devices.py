"""Devices that send: with outboxes of the SDK, or only as they are seen on the wire."""

from __future__ import annotations

import csv
import http.client
import json
import queue
import random
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from click.testing import CliRunner

from tests.support.collector import EventChain
from tracker import AgentPerformanceTracker, APIConfig
from tracker.collector.main import cli as tracker_collector
from tracker.ids import IdSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.fleet.balancer import Balancer

_PATIENCE_SECONDS = 600.0
_ANSWER_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 2.0


class Device(NamedTuple):
    """A client of the fleet, and its key."""

    client_id: str
    api_key: str


class Receipt(NamedTuple):
    """One event that a collector has given a receipt for."""

    client_id: str
    event_id: str


def register(folder: Path, database_url: str, count: int) -> list[Device]:
    """Make a key for each of `count` clients by the command for that; return them in order."""
    names, keys = folder / "clients.txt", folder / "keys.csv"
    names.write_text("".join(f"device-{number}\n" for number in range(count)))
    arguments = ["keys", "create", "--clients", str(names), "--output", str(keys)]
    done = CliRunner().invoke(tracker_collector, [*arguments, "--database", database_url])
    assert done.exit_code == 0, done.output
    with keys.open() as file:
        return [Device(row["client_id"], row["key"]) for row in csv.DictReader(file)]


class Sent:
    """What came of all requests. Any thread may call any method.

    Attributes:
        receipts: The events that have one.
        requests: Answered requests that had one.
        failures: Requests that had none, by the status of the answer; 0 if there was no answer.
        duplicates: Events that the collectors had already.
        times: When each receipt came, in seconds of `time.monotonic`.
        took: How long each answered request took, in seconds.
    """

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        self.failures: Counter[int] = Counter()
        self.requests = self.duplicates = 0
        self.times: list[float] = []
        self.took: list[float] = []
        self._lock = threading.Lock()

    def note(self, client_id: str, events: Sequence[dict[str, Any]], answer: Any,
             took: float) -> None:  # fmt: skip
        """Note a receipt for `events`."""
        assert answer["accepted"] + answer["duplicates"] == len(events), answer
        assert not answer["rejected"], answer
        with self._lock:
            self.receipts += [Receipt(client_id, event["event_id"]) for event in events]
            self.requests += 1
            self.duplicates += answer["duplicates"]
            self.times.append(time.monotonic())
            self.took.append(took)

    def note_failure(self, status: int) -> None:
        with self._lock:
            self.failures[status] += 1

    def longest_stop(self) -> float:
        """Return the longest time without a receipt, in seconds."""
        times = sorted(self.times)
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def percentile(self, share: float) -> float:
        """Return how long the slowest of this share of requests took, in seconds."""
        return sorted(self.took)[min(len(self.took) - 1, int(len(self.took) * share))]


class Wire:
    """One connection to the balancer, made again whenever it breaks; for one thread."""

    def __init__(self, balancer: Balancer, sent: Sent, seed: int) -> None:
        self._balancer = balancer
        self._sent = sent
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(self, device: Device, chain: EventChain, events: Sequence[dict[str, Any]]) -> None:
        """Send a batch until there is a receipt for it."""
        body = json.dumps(chain.batch(list(events), device.client_id)).encode()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            began = time.monotonic()
            status, after, answer = self._post(device, body)
            if status == 200:
                self._sent.note(device.client_id, events, answer, time.monotonic() - began)
                return
            assert status in (0, 429, 502, 503, 504), answer
            self._sent.note_failure(status)
            assert time.monotonic() < deadline, "a batch has no receipt for ten minutes"
            time.sleep(min(after, _LONGEST_PAUSE_SECONDS) * self._random.uniform(0.5, 1))

    def _post(self, device: Device, body: bytes) -> tuple[int, float, Any]:
        """Return status, seconds to wait and answer; status 0 if there was no answer."""
        headers = {
            "Authorization": f"Bearer {device.api_key}",
            "X-Client-ID": device.client_id,
            "Content-Type": "application/json",
        }
        try:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    self._balancer.host, self._balancer.port, timeout=_ANSWER_SECONDS,
                    context=self._balancer.ssl,
                )  # fmt: skip
            self._connection.request("POST", "/v1/events", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, 0.5, None
        after = float(answer.headers.get("Retry-After", "1"))
        return answer.status, after, json.loads(content) if answer.status == 200 else content


def simulate(
    balancer: Balancer,
    devices: Sequence[Device],
    sent: Sent,
    *,
    batches: int = 2,
    events: int = 5,
    threads: int = 24,
    seed: int = 0,
) -> None:
    """Send `batches` of `events` from each device, which has one outbox.

    One batch of fifty is sent once more, as if its receipt had been lost.
    """
    waiting: queue.SimpleQueue[Device] = queue.SimpleQueue()
    for device in devices:
        waiting.put(device)
    ids = IdSource()

    def work(number: int) -> None:
        wire = Wire(balancer, sent, seed + number)
        rng = random.Random(seed - number)  # noqa: S311 - repeatable
        try:
            while True:
                try:
                    device = waiting.get_nowait()
                except queue.Empty:
                    return
                chain = EventChain()
                for _ in range(batches):
                    made = [
                        chain.event(event_id=ids.new(), timestamp_ms=time.time_ns() // 1_000_000)
                        for _ in range(events)
                    ]
                    for _ in range(2 if rng.random() < 0.02 else 1):
                        wire.send(device, chain, made)
        finally:
            wire.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


class Upload:
    """A device with an outbox of the SDK, which is opened for each piece of work."""

    def __init__(self, folder: Path, balancer: Balancer, device: Device) -> None:
        self.device = device
        self._config = APIConfig(
            api_key=device.api_key,
            client_id=device.client_id,
            base_url=balancer.url,
            ca_bundle=balancer.ca,
            outbox_path=folder / f"{device.client_id}.sqlite3",
            batch_max_events=25,
            backoff_base=0.2,
            backoff_cap=2,
        )
        self._known: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the commands need."""
        return {
            "SDK_API_KEY": self.device.api_key,
            "SDK_CLIENT_ID": self.device.client_id,
            "SDK_BASE_URL": self._config.base_url,
            "SDK_CA_BUNDLE": str(self._config.ca_bundle),
            "SDK_OUTBOX_PATH": str(self._config.outbox_path),
        }

    def log(self, messages: int) -> list[Receipt]:
        """Log a conversation, upload it, and return what has a receipt since the last time."""
        with AgentPerformanceTracker(self._config) as tracker:
            with tracker.conversation("agent-1", user_id="user-1") as conversation:
                for number in range(messages):
                    conversation.user(f"Where is order {number}?")
            left = tracker.flush(timeout=_PATIENCE_SECONDS)
            assert (left.pending, left.dead) == (0, 0), left
        connection = sqlite3.connect(self._config.outbox_path)
        try:
            rows = {row for (row,) in connection.execute("SELECT event_id FROM delivered")}
        finally:
            connection.close()
        new = rows - self._known
        self._known = rows
        assert len(new) >= messages
        return [Receipt(self.device.client_id, event_id) for event_id in new]


def log_and_upload(
    folder: Path,
    balancer: Balancer,
    devices: Sequence[Device],
    *,
    messages: int,
    threads: int = 12,
) -> list[Receipt]:
    """Log conversations on each device by the SDK, upload them, and return what has a receipt."""

    def run(device: Device) -> list[Receipt]:
        return Upload(folder, balancer, device).log(messages)

    with ThreadPoolExecutor(threads) as pool:
        return [receipt for found in pool.map(run, devices) for receipt in found]
