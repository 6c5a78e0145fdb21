"""A few devices that send without a pause, while a test does something to the fleet."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.fleet.devices import Sent, Wire
from tests.fleet.programs import wait_for
from tests.fleet.proof import NOTHING_WRONG, counts, prove
from tests.support.collector import EventChain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleet.conftest import Fleet


@contextlib.contextmanager
def sending(fleet: Fleet, count: int, seed: int) -> Iterator[Sent]:
    """Let devices send within the block, each batch until there is a receipt for it."""
    sent, stopping = Sent(), threading.Event()
    devices = fleet.register(count)

    def send(number: int) -> None:
        wire, chain = Wire(fleet.balancer, sent, seed + number), EventChain()
        while not stopping.is_set():
            wire.send(devices[number], chain, chain.events(5))
            stopping.wait(0.05)
        wire.close()

    with ThreadPoolExecutor(count) as pool:
        work = [pool.submit(send, number) for number in range(count)]
        try:
            yield sent
        finally:
            stopping.set()
        for each in work:
            each.result()


def await_more(sent: Sent, requests: int = 100) -> None:
    """Wait until so many more requests had a receipt."""
    before = sent.requests
    wait_for(lambda: sent.requests >= before + requests, "devices get receipts", 300)


def let_a_leader_die(fleet: Fleet, sent: Sent) -> None:
    """Kill the leader with its Patroni, and return when all three servers are one cluster again."""
    await_more(sent)
    leader = fleet.cluster.leader()
    leader.kill()
    fleet.cluster.await_leader(leader)
    await_more(sent)
    fleet.cluster.await_whole()


def told(fleet: Fleet, sent: Sent) -> str:
    """Return figures for people.

    Raises:
        AssertionError: if something is lost, or there twice.
    """
    with fleet.cluster.connect(fleet.database) as connection:
        assert prove(connection, sent.receipts) == NOTHING_WRONG
        events, _ = counts(connection)
    return (
        f"{len(sent.receipts)} events with a receipt, {events} there, 0 lost;"
        f" {sent.failures.total()} requests failed; longest stop {sent.longest_stop():.1f} s"
    )
