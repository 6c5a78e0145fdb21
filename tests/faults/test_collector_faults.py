"""Fault 11: the collector is killed under load, and its disk is full."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

pytestmark = pytest.mark.faults


class Load:
    """Clients that send batches as fast as they are taken, and remember what was acknowledged.

    A batch that was not answered is sent again until it is, as the SDK does.
    """

    def __init__(self, collector: CollectorProcess, threads: int) -> None:
        self.acknowledged: list[dict[str, Any]] = []
        self.stopping = threading.Event()
        self.statuses: set[int] = set()
        self._client = CollectorClient(collector.url, collector.client_id, collector.api_key)
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        chain = EventChain()
        while not self.stopping.is_set():
            events = chain.events(20)
            body = chain.batch(events, self._client.client_id)
            while not self.stopping.is_set():
                try:
                    answer = self._client.post(body)
                except requests.RequestException:
                    self.stopping.wait(0.02)
                    continue
                self.statuses.add(answer.status_code)
                if answer.ok:
                    self.acknowledged += events
                    break


@pytest.mark.timeout(3_600)
def test_a_killed_collector_has_all_that_it_acknowledged(
    tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """SIGKILL at random instants under load; after each restart it is ready, at the end whole."""
    kills, killed, slowest = (200 if full else 3), 0, 0.0
    rng = random.Random(11)  # noqa: S311 - repeatable
    with (
        CollectorProcess(tmp_path, arguments=["--rate", "1000000"]) as collector,
        Load(collector, 4) as load,
    ):
        while killed < kills:
            seen = len(load.acknowledged)
            deadline = time.monotonic() + 30
            while len(load.acknowledged) == seen:
                assert time.monotonic() < deadline, "it takes nothing after a restart"
                time.sleep(0.005)
            time.sleep(rng.random() * 0.3)
            collector.kill()
            killed += 1
            begun = time.monotonic()
            collector.start()
            slowest = max(slowest, time.monotonic() - begun)
        load.stopping.set()
        stored = {event["event_id"]: event for event in collector.events()}
        missing = [e for e in load.acknowledged if e["event_id"] not in stored]
        fields = ("type", "data", "seq", "digest", "chain", "session_id", "timestamp_ms")
        changed = [
            event
            for event in load.acknowledged
            if event["event_id"] in stored
            and any(stored[event["event_id"]][name] != event[name] for name in fields)
        ]
        assert load.statuses <= {200}, load.statuses
    assert load.acknowledged
    tell(
        f"collector killed | {killed} kills, {len(load.acknowledged)} events acknowledged | "
        f"{len(missing)} lost | ready again within {slowest:.1f} s"
    )
    assert missing == []
    assert changed == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system, and only Linux has tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_answered_503_and_the_clients_keep_all(
    config: MakeConfig, small_disk: Path, tell: Callable[[str], None]
) -> None:
    """Nothing half-stored, nothing given up; with room again it goes on without a restart."""
    ballast = small_disk / "ballast"
    with CollectorProcess(small_disk) as collector:
        room = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - 200_000)))
        settings = config(
            base_url=collector.url, api_key=collector.api_key, client_id=collector.client_id
        )
        with AgentPerformanceTracker(settings) as tracker:
            ids = [tracker.log_user_message("s", f"{n} " + "x" * 2_000) for n in range(600)]
            deadline = time.monotonic() + 60
            while tracker.flush(1).pending and time.monotonic() < deadline:
                client = CollectorClient(collector.url, collector.client_id, collector.api_key)
                chain = EventChain()
                answer = client.post(
                    chain.batch([chain.event({"fill": "x" * 400_000})], collector.client_id)
                )
                if answer.status_code == 503:
                    break
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"]["code"] == "storage_unavailable"
            kept = tracker.flush(1).pending
            assert kept > 0
            ballast.unlink()
            assert tracker.flush(60).pending == 0
        arrived = [event["event_id"] for event in collector.events()]
        assert [event_id for event_id in arrived if event_id in set(ids)] == ids
    tell(f"collector's disk full | {len(ids)} events, {kept} waited | 0 lost |")


@pytest.mark.timeout(120)
def test_few_descriptors_do_not_fill_the_log(tmp_path: Path) -> None:
    """With 48 of them, more connections than that: some are closed, and the rest is served."""
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not on this machine")
    with CollectorProcess(tmp_path, prefix=["prlimit", "--nofile=48:48"]) as collector:
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    address = ("127.0.0.1", collector.port)
                    stack.enter_context(socket.create_connection(address, 1))
            time.sleep(2)
            assert len(collector.stderr) < 20_000
        client = CollectorClient(collector.url, collector.client_id, collector.api_key)
        chain = EventChain()
        deadline = time.monotonic() + 30
        body = chain.batch(chain.events(1))
        while not accepted(client, body):
            assert time.monotonic() < deadline, collector.stderr
            time.sleep(0.1)
        assert len(collector.stderr) < 20_000


def accepted(client: CollectorClient, body: object) -> bool:
    try:
        return client.post(body).ok
    except requests.ConnectionError:
        return False  # connections that were closed have not all gone yet


@pytest.mark.timeout(180)
def test_a_clients_long_reads_do_not_make_another_wait(
    tmp_path: Path, full: bool, tell: Callable[[str], None]
) -> None:
    """Forty-five reads of all its events at once: each is answered, or told to come again."""
    with CollectorProcess(tmp_path, arguments=["--rate", "1000000"]) as collector:
        busy, calm = collector.client("busy"), collector.client("calm")
        chain, other = EventChain(), EventChain()
        for _ in range(400 if full else 80):
            busy.send(chain, chain.events(500))

        def read() -> int:
            return requests.get(
                f"{collector.url}/v1/outboxes", headers=busy.headers, timeout=120
            ).status_code

        with ThreadPoolExecutor(45) as pool:
            reads = [pool.submit(read) for _ in range(45)]
            took = []
            for _ in range(20):
                begun = time.monotonic()
                calm.get("/v1/ping")
                assert calm.send(other, other.events(1))["accepted"] == 1
                assert len(calm.outboxes()) == 1
                took.append(time.monotonic() - begun)
            statuses = [each.result() for each in reads]
    tell(f"another client's slowest of 20 beside 45 long reads: {max(took) * 1000:.0f} ms")
    assert max(took) < 3
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
