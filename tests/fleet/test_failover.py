"""No receipt is false, whatever happens to the database: three replicas on a real cluster."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.fleet.devices import Device, Receipt, Sent, simulate
from tests.fleet.load import let_a_leader_die, sending, told
from tests.fleet.programs import wait_for
from tests.fleet.proof import NOTHING_WRONG, prove
from tests.fleet.replicas import Keeper, Replica
from tests.support.collector import EventChain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet.cluster import Cluster, Node
    from tests.fleet.conftest import Fleet, Tell

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(3_600)]

OK, UNAVAILABLE = 200, 503
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def post(replica: Replica, device: Device, body: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {device.api_key}", "X-Client-ID": device.client_id}
    return requests.post(f"{replica.url}/v1/events", json=body, headers=headers, timeout=90)


def receipts_of(device: Device, events: list[dict[str, Any]]) -> list[Receipt]:
    return [Receipt(device.client_id, event["event_id"]) for event in events]


def test_a_batch_sent_six_times_at_once_is_stored_once(fleet: Fleet, seed: int) -> None:
    """36 batches of six outboxes, shuffled, to three replicas: accepted once, else duplicates."""
    with Keeper(fleet.replicas):
        devices = fleet.register(6)
        chains = [EventChain() for _ in devices]
        batches = [
            (device, chain.batch(chain.events(200), device.client_id))
            for device, chain in zip(devices, chains, strict=True)
            for _ in range(6)
        ]
        requests_ = batches * 6
        random.Random(seed).shuffle(requests_)  # noqa: S311 - repeatable
        replicas = cycle(fleet.replicas)

        def send(each: tuple[Device, dict[str, Any]], replica: Replica) -> tuple[int, int]:
            while (answer := post(replica, *each)).status_code == UNAVAILABLE:
                time.sleep(0.2)
            assert answer.status_code == OK, answer.text
            receipt = answer.json()
            return receipt["accepted"], receipt["duplicates"]

        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(send, requests_, (next(replicas) for _ in requests_)))
        assert [sum(column) for column in zip(*found, strict=True)] == [7_200, 36_000]
        receipts = [
            receipt for device, batch in batches for receipt in receipts_of(device, batch["events"])
        ]
        with fleet.cluster.connect(fleet.database) as connection:
            assert prove(connection, receipts) == NOTHING_WRONG


def test_four_replicas_start_at_once_on_an_empty_database(
    cluster: Cluster, tmp_path: Path, full: bool
) -> None:
    """Each of them is there in the end, and none has to be started again."""
    for _ in range(20 if full else 2):
        url = cluster.url(cluster.new_database())
        replicas = [Replica(tmp_path, url) for _ in range(4)]
        try:
            for replica in replicas:
                replica.program.start()
            for replica in replicas:
                replica.await_ready()
                assert replica.program.runs
        finally:
            for replica in replicas:
                replica.program.end()


def test_receipts_end_with_synchronous_replication(fleet: Fleet, tell: Tell) -> None:
    """Switched off in Patroni, a replica that runs gives none, and none can be started."""
    with Keeper(fleet.replicas):
        (device,) = fleet.register(1)
        chain = EventChain()
        stored = chain.events(3)
        assert post(fleet.replicas[0], device, chain.batch(stored, device.client_id)).ok
        batch = chain.batch(chain.events(3), device.client_id)
        fleet.cluster.configure(synchronous_mode=False, synchronous_mode_strict=False)
        try:
            wait_for(lambda: fleet.cluster.standby_names() == "", "no standby is synchronous", 60)
            for replica in fleet.replicas:
                assert post(replica, device, batch).json()["error"]["code"] == "not_replicated"
            late = Replica(fleet.folder, fleet.cluster.url(fleet.database))
            late.program.start()
            wait_for(lambda: not late.program.runs, "it has ended", 60)
            assert "synchronous_standby_names" in late.program.log()
            tell(f"refused to start: {late.program.log().strip().splitlines()[-1]}")
        finally:
            fleet.cluster.configure(synchronous_mode=True, synchronous_mode_strict=True)
        fleet.cluster.await_whole()
        assert post(fleet.replicas[0], device, batch).json()["accepted"] == 3


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_wait_for_a_standby_that_an_operator_ends_gives_no_receipt(
    how: str, fleet: Fleet, full: bool, tell: Tell
) -> None:
    """Both standbys hang; a batch and its resend wait; then the leader dies, and one takes over."""
    waits = refused = 0
    with Keeper(fleet.replicas):
        (device,) = fleet.register(1)
        chain = EventChain()
        receipts, open_batches = [], []
        # Otherwise the leader takes the standbys for gone, and answers at once.
        fleet.cluster.configure(postgresql={"parameters": {"wal_sender_timeout": "10min"}})
        for _ in range(4 if full else 1):
            leader = fleet.cluster.leader()
            standbys = [node for node in fleet.cluster.nodes if node is not leader]
            events = chain.events(5)
            send_until_receipt(fleet, device, chain.batch(events, device.client_id))
            receipts += receipts_of(device, events)
            for node in standbys:
                node.freeze()
            for _ in range(5 if full else 3):
                events = chain.events(3)
                open_batches.append(chain.batch(events, device.client_id))
                for replica in fleet.replicas[:2]:  # the batch, and the same again
                    answer, ended = post_and_end(fleet, how, replica, device, open_batches[-1])
                    assert answer.status_code == UNAVAILABLE, answer.text
                    assert "Retry-After" in answer.headers
                    waits += ended
                    refused += 1
            fail_over(fleet, leader, standbys)
            with fleet.cluster.connect(fleet.database) as connection:
                assert prove(connection, receipts).lost == 0
            for batch in open_batches:
                send_until_receipt(fleet, device, batch)
                receipts += receipts_of(device, batch["events"])
            open_batches.clear()
        with fleet.cluster.connect(fleet.database) as connection:
            assert prove(connection, receipts) == NOTHING_WRONG
    assert waits > 0
    tell(f"{how}: {waits} waits ended, {refused} requests without a receipt, 0 lost")


def post_and_end(
    fleet: Fleet, how: str, replica: Replica, device: Device, body: object
) -> tuple[requests.Response, int]:
    """Post a batch and end each wait that it causes; return the answer, and how many waited."""
    ended = 0
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(post, replica, device, body)
        with fleet.cluster.connect() as connection:
            while not answered.done():
                query = f"SELECT {how}(pid) FROM ({WAITING}) AS waiting"  # noqa: S608 - our own
                ended += len(connection.execute(query).fetchall())
                time.sleep(0.05)
        return answered.result(), ended


def fail_over(fleet: Fleet, leader: Node, standbys: list[Node]) -> None:
    """Kill the leader before the standbys come back; wait until all of them are one again."""
    leader.kill()
    for node in standbys:
        node.thaw()
    fleet.cluster.await_leader(leader)
    fleet.cluster.await_whole()


def send_until_receipt(fleet: Fleet, device: Device, body: object) -> None:
    deadline = time.monotonic() + 120
    for replica in cycle(fleet.replicas):
        answer = post(replica, device, body)
        if answer.status_code == OK:
            return
        assert answer.status_code == UNAVAILABLE, answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)


def test_nothing_is_lost_when_leaders_die(fleet: Fleet, full: bool, seed: int, tell: Tell) -> None:
    """One leader after another is killed with its Patroni, while devices send by the balancer."""
    if not full:
        pytest.skip("with --full: in short, one leader dies in the tests of the fleet and the pool")
    with Keeper(fleet.replicas, seed), sending(fleet, 8, seed) as sent:
        for _ in range(10):
            let_a_leader_die(fleet, sent)
    tell(f"10 leaders killed: {told(fleet, sent)}")
    assert sent.longest_stop() < 120  # 20 s on a calm machine; the figure says how long it was


def test_a_client_that_waits_does_not_stop_the_others(fleet: Fleet, tell: Tell) -> None:
    """A hundred batches of one client behind a lock; others send, and replicas are ready."""
    with Keeper(fleet.replicas):
        busy, *calm = fleet.register(31)
        chain, sent = EventChain(), Sent()
        send_until_receipt(fleet, busy, chain.batch(chain.events(1), busy.client_id))
        bodies = [chain.batch(chain.events(1), busy.client_id) for _ in range(100)]
        with fleet.cluster.connect(fleet.database) as held, held.transaction():
            held.execute("SELECT 1 FROM heads WHERE client_id = 'device-0' FOR UPDATE")
            with ThreadPoolExecutor(101) as pool:
                posts = [pool.submit(post, replica, busy, body)
                         for replica, body in zip(cycle(fleet.replicas), bodies)]  # fmt: skip
                await_lock_wait(fleet)
                sending = pool.submit(simulate, fleet.balancer, calm, sent, threads=4, batches=4)
                ready: list[float] = []
                while not sending.done():
                    for replica in fleet.replicas:
                        began = time.monotonic()
                        answer = requests.get(f"{replica.url}/readyz", timeout=10)
                        ready.append(time.monotonic() - began)
                        assert answer.status_code in (OK, UNAVAILABLE)
                    time.sleep(0.1)
                sending.result()
                held.execute("ROLLBACK")
                statuses = {each.result().status_code for each in posts}
    tell(
        f"beside 100 batches that wait, {sent.requests} of other clients: p50"
        f" {sent.percentile(0.5):.2f} s, p99 {sent.percentile(0.99):.2f} s;"
        f" /readyz at most {max(ready):.2f} s"
    )
    assert statuses <= {OK, UNAVAILABLE}
    assert sent.percentile(0.99) < 10  # a wait behind the lock would take longer
    assert max(ready) < 5


def await_lock_wait(fleet: Fleet) -> None:
    query = ("SELECT count(*) FROM pg_stat_activity"
             " WHERE wait_event_type = 'Lock' AND query LIKE '%heads%'")  # fmt: skip
    wait_for(lambda: fleet.cluster.execute(query)[0][0] > 0, "batches wait for the lock", 30)


def test_a_leader_without_standbys_gives_no_receipt(fleet: Fleet) -> None:
    """Both standbys are dead: batches are answered at once, and stored when one is back."""
    with Keeper(fleet.replicas):
        (device,) = fleet.register(1)
        chain = EventChain()
        leader = fleet.cluster.leader()
        for node in fleet.cluster.nodes:
            if node is not leader:
                node.kill()
        batch = chain.batch(chain.events(3), device.client_id)
        for replica in fleet.replicas:
            assert post(replica, device, batch).status_code == UNAVAILABLE
        assert leader.leads()  # it is no outage of the database
        fleet.cluster.await_whole()
        send_until_receipt(fleet, device, batch)
