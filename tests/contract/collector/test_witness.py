"""The collector as a witness: which heads it cosigns, over HTTP from a real process."""

from __future__ import annotations

import base64
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.device_tree import DeviceTree, new_key
from tracker.events import INTEGRITY_CHECKPOINT, INTEGRITY_KEY_CHANGED
from tracker.evidence import note
from tracker.evidence.tree import Tree
from tracker.evidence.verifier import parse_checkpoint, parse_key, signers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.collector import CollectorClient, CollectorProcess


@pytest.fixture
def device() -> DeviceTree:
    return DeviceTree(new_key())


def witnessed(receipt: dict[str, Any]) -> int:
    """Return the size of the head in a receipt; 0 if there is none."""
    return int(receipt["witness"]["size"]) if "witness" in receipt else 0


def report(client: CollectorClient) -> tuple[str, int, int]:
    (outbox,) = client.outboxes()
    return outbox["chain"], outbox["cosigned_size"], outbox["contradicting_heads"]


def another_root(device: DeviceTree, size: int) -> str:
    """Return a note of the device over other events than those that it sent."""
    liar = device.copy()
    liar.kept.of = {seq: bytes(32) for seq in device.kept.of}
    return liar.note(size)


def test_a_head_comes_back_cosigned(client: CollectorClient, device: DeviceTree) -> None:
    """With the device's signature and the witness's, whose key the collector tells anybody."""
    sent = [*device.events(5), device.head()]
    receipt = client.send(device, sent)
    head = parse_checkpoint(receipt["witness"]["note"].encode())
    assert (head.size, head.root) == (5, Tree(device.kept, 5).root())
    assert receipt["witness"]["root"] == head.root.hex()
    told = requests.get(f"{client.url}/v1/witness-key", timeout=10).text
    witness = parse_key(told.strip())
    assert witness.name == "tracker-collector"
    times = signers(head.note, [device.verifier_key, witness])
    assert times.keys() == {device.verifier_key, witness}
    (received,) = {event["received_at_ms"] for event in client.events()}
    assert times[witness] == received // 1000
    assert receipt["accepted"] == 6
    assert report(client) == ("intact", 5, 0)


def test_every_receipt_has_the_newest_head(client: CollectorClient, device: DeviceTree) -> None:
    """One for duplicates too; and none before the first head."""
    first = device.events(2)
    assert "witness" not in client.send(device, first)
    head = device.head()
    receipt = client.send(device, [head])
    assert witnessed(receipt) == 2
    assert client.send(device, first)["witness"] == receipt["witness"]
    assert client.send(device, [*device.events(3), device.head(2)])["witness"]["size"] == 6
    assert client.send(device, [head])["witness"]["size"] == 6


def test_a_device_without_a_key_is_witnessed_alone(client: CollectorClient) -> None:
    """Its note has one signature, the witness's; a key that it gets later is bound then."""
    device = DeviceTree()
    receipt = client.send(device, [*device.events(3), device.head()])
    head = parse_checkpoint(receipt["witness"]["note"].encode())
    assert [line.name for line in head.note.signatures] == ["tracker-collector"]
    device.key = new_key()
    assert witnessed(client.send(device, [device.head(3)])) == 4
    device.key = None
    assert witnessed(client.send(device, [device.head(4)])) == 4


def test_a_signature_whose_key_nobody_told_binds_nothing(
    client: CollectorClient, device: DeviceTree
) -> None:
    """It stays in the note, for somebody who knows the key from elsewhere."""
    device.event()
    receipt = client.send(device, [device.head(size=1, key=None)])
    head = parse_checkpoint(receipt["witness"]["note"].encode())
    assert device.verifier_key in signers(head.note, [device.verifier_key])
    device.key = new_key()
    assert witnessed(client.send(device, [device.head(1)])) == 2


def test_heads_made_offline_arrive_at_once(client: CollectorClient, device: DeviceTree) -> None:
    """They all begin at what was cosigned before; the largest gets the cosignature."""
    heads = [[*device.events(2), device.head()] for _ in range(3)]
    assert witnessed(client.send(device, [event for part in heads for event in part])) == 8
    assert witnessed(client.send(device, [device.head(8)])) == 9


def test_a_head_whose_proof_begins_elsewhere_waits_for_the_next(
    client: CollectorClient, device: DeviceTree
) -> None:
    """The receipt was lost: the device does not know yet what was cosigned. That is no fork."""
    client.send(device, [*device.events(2), device.head()])
    assert witnessed(client.send(device, [*device.events(2), device.head(1)])) == 2
    assert witnessed(client.send(device, [device.head(2)])) == 6
    assert report(client) == ("intact", 6, 0)


def test_a_smaller_head_is_not_cosigned(client: CollectorClient, device: DeviceTree) -> None:
    """Not a device that was set back, nor one whose event came late."""
    client.send(device, [*device.events(5), device.head()])
    receipt = client.send(device, [device.head(0, size=3)])
    assert (receipt["accepted"], witnessed(receipt)) == (1, 5)
    assert report(client) == ("intact", 5, 0)


@pytest.mark.parametrize("size", [3, 5, 6])
def test_a_head_that_contradicts_is_never_cosigned(
    client: CollectorClient, device: DeviceTree, size: int
) -> None:
    """Of a size that was cosigned with another root, or with a proof that is none."""
    client.send(device, [*device.events(3), device.head()])
    client.send(device, [device.event(), device.head(3)])
    receipt = client.send(device, [device.head(5, note=another_root(device, size), consistency=[])])
    assert (receipt["accepted"], receipt["rejected"], witnessed(receipt)) == (1, [], 5)
    assert receipt["warning"] == "forked"
    assert report(client) == ("forked", 5, 1)
    assert witnessed(client.send(device, [device.head(5)])) == 7


def test_a_clone_gets_no_second_head(client: CollectorClient, device: DeviceTree) -> None:
    """Both copies go on from the same head: one is cosigned, and its root shows the other."""
    client.send(device, [*device.events(3), device.head()])
    clone = device.copy()
    client.send(device, [*device.events(2), device.head(3)])
    receipt = client.send(clone, [*clone.events(2), clone.head(3)])
    assert receipt["warning"] == "forked"
    assert receipt["witness"]["root"] == Tree(device.kept, 6).root().hex()
    assert receipt["witness"]["root"] != Tree(clone.kept, 6).root().hex()


def test_a_signature_by_another_key_is_none(client: CollectorClient, device: DeviceTree) -> None:
    """Who has the API key alone cannot go on under the device's name; the event is stored."""
    client.send(device, [*device.events(2), device.head()])
    thief = device.copy()
    thief.key = new_key()
    assert witnessed(client.send(thief, [*thief.events(2), thief.head(2)])) == 2
    assert report(client)[1:] == (2, 0)


def test_a_forged_signature_binds_no_key(client: CollectorClient, device: DeviceTree) -> None:
    """The first head names a key that did not sign it."""
    forged = DeviceTree(new_key())
    forged.outbox_id = device.outbox_id
    event = device.event()
    sent = [event, device.head(key=str(forged.verifier_key))]
    assert witnessed(client.send(device, sent)) == 0
    assert witnessed(client.send(device, [device.head()])) == 2


def test_a_key_is_changed_by_a_note_that_both_sign(
    client: CollectorClient, device: DeviceTree
) -> None:
    """From then on the old one counts no more."""
    client.send(device, [*device.events(2), device.head()])
    old, new = device.key, new_key()
    assert old is not None
    change = {"note": note.key_change(device.outbox_id, old, new)}
    event = device.event(change, type=INTEGRITY_KEY_CHANGED)
    device.key = new
    assert witnessed(client.send(device, [event, device.head(2)])) == 4
    device.key = old
    assert witnessed(client.send(device, [device.head(4)])) == 4


def test_a_key_that_was_never_bound_hands_over_nothing(
    client: CollectorClient, device: DeviceTree
) -> None:
    """Both signatures are right, but the old key is not this outbox's."""
    client.send(device, [*device.events(2), device.head()])
    device.key = new_key()
    change = {"note": note.key_change(device.outbox_id, new_key(), device.key)}
    event = device.event(change, type=INTEGRITY_KEY_CHANGED)
    assert witnessed(client.send(device, [event, device.head(2)])) == 2


def test_another_client_cannot_get_an_outboxs_head(
    client: CollectorClient, either_collector: CollectorProcess, device: DeviceTree
) -> None:
    """The witness's word is about the outbox id: it is kept, whoever sends, and told to none."""
    client.send(device, [*device.events(4), device.head()])
    other = either_collector.client(f"client-{uuid.uuid4()}")
    thief = DeviceTree(new_key())
    thief.outbox_id = device.outbox_id
    receipt = other.send(thief, [*thief.events(6), thief.head()])
    assert (receipt["accepted"], witnessed(receipt)) == (7, 0)
    assert report(client)[1:] == (4, 0)


def test_many_at_once_get_one_history(client: CollectorClient, device: DeviceTree) -> None:
    """However batches interleave, all heads that were cosigned are of one tree."""
    client.send(device, [*device.events(2), device.head()])
    clones = [device.copy() for _ in range(6)]
    batches = [(clone, [*clone.events(2), clone.head(2)]) for clone in clones]
    with ThreadPoolExecutor(6) as pool:
        receipts = list(pool.map(lambda sent: client.send(*sent), batches))
    roots = {receipt["witness"]["root"] for receipt in receipts} - {
        Tree(device.kept, 2).root().hex()
    }
    assert len(roots) == 1


def test_clients_that_race_for_an_outbox_get_one_history(
    either_collector: CollectorProcess,
) -> None:
    """The first head of an outbox is the only first one, whoever's it is."""
    devices = [DeviceTree() for _ in range(6)]
    batches = []
    for device in devices:
        device.outbox_id = devices[0].outbox_id
        sender = either_collector.client(f"client-{uuid.uuid4()}")
        batches.append((sender, device, [*device.events(3), device.head()]))
    with ThreadPoolExecutor(6) as pool:
        receipts = list(pool.map(lambda sent: sent[0].send(sent[1], sent[2]), batches))
    assert sorted(map(witnessed, receipts)) == [0, 0, 0, 0, 0, 3]


NOTE = "tracker.outbox/x\n3\n" + base64.b64encode(bytes(32)).decode() + "\n\n"
ODD = st.one_of(
    st.none(),
    st.integers(-3, 2**70),
    st.text(max_size=20),
    st.sampled_from(["", "\n\n", NOTE, NOTE * 3000, "\u2014 x AAAA\n" * 200]),
    st.lists(st.one_of(st.text("0a", min_size=64, max_size=64), st.integers()), max_size=3),
    st.dictionaries(st.sampled_from(["a", "note"]), st.integers(), max_size=1),
)
FIELDS = ("note", "key", "old_size", "consistency", "unknown", "gaps")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), ODD, min_size=1))
def test_no_batch_is_refused_for_an_odd_head(
    shared_collector: CollectorProcess, changes: dict[str, Any]
) -> None:
    """Whatever a device says of its tree, its events are stored, and the next head is cosigned."""
    client = shared_collector.client(f"client-{uuid.uuid4()}")
    device = DeviceTree(new_key())
    first = device.event()
    data = {"note": device.note(), "old_size": 0, "consistency": [], **changes}
    odd = [device.event(data, type=kind) for kind in (INTEGRITY_CHECKPOINT, INTEGRITY_KEY_CHANGED)]
    receipt = client.send(device, [first, *odd])
    assert (receipt["accepted"], receipt["rejected"]) == (3, [])
    assert witnessed(client.send(device, [device.head(witnessed(receipt))])) == 3


def resigned(sent: str) -> str:
    """Return a note whose last signature is changed."""
    return sent[:-7] + ("AAAAA=" if sent[-7:-1] != "AAAAA=" else "AAAAE=") + "\n"


@pytest.mark.parametrize(
    ("signed", "change"),
    [
        (False, lambda sent: sent.replace("\n3\n", "\n03\n")),
        (False, lambda sent: sent.replace("\n3\n", "\n9\n")),  # more than there is
        (False, lambda sent: sent.replace("\n3\n", "\n0\n")),
        (False, lambda sent: sent.replace("\n\n", "\nmore\n\n")),
        (False, lambda sent: sent.replace("tracker.outbox/", "tracker.bundle/")),
        (False, lambda sent: sent[:-1]),
        (True, lambda sent: sent.replace("\u2014", "-")),
        (True, lambda sent: sent[:-1]),
        (True, lambda sent: sent.partition("\n\n")[0] + "\n\n"),
        (True, lambda sent: sent + (sent.splitlines()[-1] + "\n") * 4),
        (True, lambda sent: sent + "\u2014 tracker-collector AAAAAAAA\n"),
        (True, resigned),
    ],
)
def test_a_note_that_is_not_quite_one_is_not_cosigned(
    client: CollectorClient, signed: bool, change: Callable[[str], str]
) -> None:
    """Although nothing was cosigned before that it might contradict."""
    device = DeviceTree(new_key() if signed else None)
    device.events(3)
    sent = device.note()
    assert change(sent) != sent
    assert witnessed(client.send(device, [device.head(note=change(sent))])) == 0
    assert witnessed(client.send(device, [device.head(size=3)])) == 3
