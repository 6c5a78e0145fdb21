"""A fleet of devices, replicas killed at random, and a leader that dies: nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.fleet.devices import Sent, log_and_upload, simulate
from tests.fleet.proof import NOTHING_WRONG, counts, prove
from tests.fleet.replicas import Keeper

if TYPE_CHECKING:
    from tests.fleet.conftest import Fleet, Tell

pytestmark = pytest.mark.fleet

REAL, SIMULATED, MESSAGES = 100, 1_900, 20
FULL_REAL, FULL_SIMULATED, FULL_MESSAGES = 1_000, 100_000, 100


@pytest.mark.timeout(7_200)
def test_every_event_with_a_receipt_is_there_once_and_in_order(
    fleet: Fleet, full: bool, seed: int, tell: Tell
) -> None:
    """Real outboxes and others, kills of replicas, one death of the leader; then a proof by SQL."""
    real, simulated = (FULL_REAL, FULL_SIMULATED) if full else (REAL, SIMULATED)
    if sizes := os.environ.get("FLEET_DEVICES"):
        real, simulated = map(int, sizes.split(","))
    tell(f"seed {seed}: FLEET_SEED={seed} repeats the run")
    sent = Sent()
    with Keeper(fleet.replicas, seed, kill_every=2.0) as keeper:
        devices = fleet.register(real + simulated)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            wire = pool.submit(simulate, fleet.balancer, devices[real:], sent, seed=seed)
            outboxes = pool.submit(log_and_upload, fleet.folder, fleet.balancer, devices[:real],
                                   messages=FULL_MESSAGES if full else MESSAGES)  # fmt: skip
            former = _kill_leader_amid(fleet, sent)
            receipts = outboxes.result()
            wire.result()
        took = time.monotonic() - began
        keeper.stop_killing()
        kills = keeper.kills
    receipts += sent.receipts
    fleet.cluster.await_whole()
    with fleet.cluster.connect(fleet.database) as connection:
        events, there = counts(connection)
        proof = prove(connection, receipts)
    tell(
        f"{real} outboxes of the SDK and {simulated} simulated: {events} events of {there} outboxes"
        f" in {took:.0f} s ({events / took:.0f} events/s); {kills} replicas killed, leader"
        f" {former} killed; {len(receipts)} events with a receipt;"
        f" {sent.failures.total()} requests failed, {sent.duplicates} duplicates;"
        f" p99 {sent.percentile(0.99):.2f} s, longest stop {sent.longest_stop():.0f} s"
    )
    assert proof == NOTHING_WRONG
    assert there == real + simulated
    assert events == len(set(receipts))
    assert kills > 0


def _kill_leader_amid(fleet: Fleet, sent: Sent) -> str:
    """Kill the leader while devices send, wait for another, and start the former one again."""
    some = threading.Event()
    while not some.wait(0.1):
        if sent.requests >= 200:  # so that the devices are at work
            some.set()
    former = fleet.cluster.leader()
    former.kill()
    fleet.cluster.await_leader(former)
    fleet.cluster.await_whole()
    return former.name
