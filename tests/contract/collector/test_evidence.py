"""What the collector proves to a third party, over HTTP from a real process."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.contract.evidence.bundles import members
from tests.support.collector import CollectorClient, EventChain
from tests.support.device_tree import DeviceTree, new_key
from tracker.evidence import note
from tracker.evidence.tree import Tree
from tracker.evidence.verifier import Report, Trust, is_extension, is_included, leaf_hash, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import CollectorProcess

PIN = "My PIN is 407193"
ERASURE = "compliance.erased"


@pytest.fixture
def device() -> DeviceTree:
    return DeviceTree(new_key())


@pytest.fixture
def sent(client: CollectorClient, device: DeviceTree) -> list[dict[str, Any]]:
    """Ten events of two sessions, sent with two heads, over 5 and over all 11."""
    events = [device.event(session_id=f"order-{number % 2}", user_id="user_7")
              for number in range(5)]  # fmt: skip
    events.append(device.head())
    client.send(device, events)
    more = [device.event(session_id=f"order-{number % 2}") for number in range(5)]
    client.send(device, [*more, device.head(5)])
    return events + more


def asked(client: CollectorClient, path: str, **parameters: object) -> requests.Response:
    return requests.get(
        client.url + path,
        headers=client.headers,
        params=parameters,  # type: ignore[arg-type] # requests turns anything to text
        timeout=10,
    )


def bundle(client: CollectorClient, device: DeviceTree, **parameters: object) -> bytes:
    answer = asked(client, "/v1/evidence", outbox_id=device.outbox_id, **parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/zip"
    return answer.content


def check(client: CollectorClient, device: DeviceTree, content: bytes, folder: Path) -> Report:
    """Return what the verifier says to somebody who knows the keys from elsewhere."""
    path = folder / "evidence.zip"
    path.write_bytes(content)
    witness = asked(client, "/v1/witness-key").text.strip()
    return verify(path, Trust((str(device.verifier_key),), (witness,)))


def refused(answer: requests.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["message"].endswith(".")
    return answer.status_code, error["code"]


@pytest.mark.usefixtures("sent")
def test_all_heads_are_listed_page_by_page(client: CollectorClient, device: DeviceTree) -> None:
    """Those that were not cosigned too, each with what became of it."""
    smaller, stranger = device.head(0, size=3), device.copy()
    stranger.key = new_key()
    client.send(device, [smaller, stranger.head(11)])
    path = f"/v1/outboxes/{device.outbox_id}/checkpoints"
    first = client.get(path, limit=3)
    rest = client.get(path, limit=3, after=first["next"])
    assert rest["next"] is None
    listed = [*first["checkpoints"], *rest["checkpoints"]]
    assert [(each["seq"], each["size"], each["state"]) for each in listed] == [
        (6, 5, "cosigned"),
        (12, 11, "cosigned"),
        (14, 13, "unsigned"),
        (13, 3, "unproven"),
    ]
    assert listed[1]["root"] == Tree(device.kept, 11).root().hex()
    assert "tracker-collector" in listed[1]["note"]
    assert listed[3]["note"] == smaller["data"]["note"]
    assert client.get(f"/v1/outboxes/{uuid.uuid4()}/checkpoints")["checkpoints"] == []


@pytest.mark.usefixtures("sent")
def test_proofs_hold_under_the_heads(client: CollectorClient, device: DeviceTree) -> None:
    """By RFC 9162's own algorithms: each event is in a head, and each head extends the others."""
    path = f"/v1/outboxes/{device.outbox_id}"
    for size in (1, 7, 11):
        root = Tree(device.kept, size).root()
        for seq in {1, size // 2 + 1, size}:
            found = client.get(f"{path}/proof", seq=seq, size=size)
            assert found["root"] == root.hex()
            leaf = leaf_hash(bytes.fromhex(found["digest"]))
            hashes = [bytes.fromhex(each) for each in found["inclusion"]]
            assert is_included(leaf, seq - 1, size, hashes, root)
        for old in {1, size // 2 + 1, size}:
            found = client.get(f"{path}/consistency", old=old, new=size)
            hashes = [bytes.fromhex(each) for each in found["consistency"]]
            assert is_extension(old, Tree(device.kept, old).root(), size, root, hashes)


def test_what_never_arrived_cannot_be_proved(client: CollectorClient, device: DeviceTree) -> None:
    """The answer names the first number that is missing; what arrives late is proved then."""
    events = [*device.events(300), device.head()]
    late = events.pop(99)
    client.send(device, events)
    paths: dict[str, dict[str, Any]] = {
        f"/v1/outboxes/{device.outbox_id}/proof": {"seq": 270, "size": 300},
        f"/v1/outboxes/{device.outbox_id}/consistency": {"old": 290, "new": 300},
        "/v1/evidence": {"outbox_id": device.outbox_id, "first_seq": 1, "last_seq": 9},
    }
    for path, parameters in paths.items():
        answer = asked(client, path, **parameters)
        assert refused(answer) == (404, "not_provable")
        assert "seq 100" in answer.json()["error"]["message"]
        if path != "/v1/evidence":
            assert asked(
                client, path, **{**parameters, "seq": 3, "size": 64, "old": 2, "new": 64}
            ).ok
    client.send(device, [late])
    assert all(asked(client, path, **parameters).ok for path, parameters in paths.items())


@pytest.mark.usefixtures("sent")
def test_a_proof_beyond_the_tree_is_refused(client: CollectorClient, device: DeviceTree) -> None:
    """As is one of another client's outbox, or of none."""
    path = f"/v1/outboxes/{device.outbox_id}"
    assert refused(asked(client, f"{path}/proof", seq=5, size=4)) == (404, "not_provable")
    assert refused(asked(client, f"{path}/proof", seq=1, size=99)) == (404, "not_provable")
    assert refused(asked(client, f"{path}/consistency", old=3, new=2)) == (404, "not_provable")
    assert refused(asked(client, f"{path}/proof", seq=0, size=4)) == (422, "invalid_query")
    assert refused(asked(client, f"{path}/proof", seq=1)) == (422, "invalid_query")
    for unknown in (str(uuid.uuid4()), "%00"):
        elsewhere = f"/v1/outboxes/{unknown}/proof"
        assert asked(client, elsewhere, seq=1, size=1).status_code == 404


def test_a_session_is_proved(
    client: CollectorClient, device: DeviceTree, sent: list[dict[str, Any]], tmp_path: Path
) -> None:
    """By device, witness and the head that first covered it."""
    content = bundle(client, device, session_id="order-0")
    report = check(client, device, content, tmp_path)
    assert report.verdict == "PROVEN", report
    lines = members(content)["events.jsonl"].decode().splitlines()
    assert len(lines) == sum(event["session_id"] == "order-0" for event in sent)
    assert "heads/5.txt" not in members(content)
    assert "heads/5.txt" in members(bundle(client, device, first_seq=1, last_seq=4))


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize(
    ("selected", "seqs"),
    [
        ({"first_seq": 2, "last_seq": 11, "complete": True}, range(2, 12)),
        ({"session_id": "order-1", "complete": True}, range(2, 11)),
        ({"since": 1_790_000_000_000}, range(1, 12)),
        ({"until": 1_790_000_000_001}, range(1, 12)),
        ({"since": 0, "until": 1_790_000_000_001, "withhold": "user"}, range(1, 12)),
    ],
)
def test_a_range_or_a_period_is_proved(
    client: CollectorClient,
    device: DeviceTree,
    selected: dict[str, Any],
    seqs: range,
    tmp_path: Path,
) -> None:
    """What no head covers yet is left out; of numbers between, only the digest is shown."""
    client.send(device, device.events(2))
    content = bundle(client, device, **selected)
    report = check(client, device, content, tmp_path)
    assert report.verdict == "PROVEN", report
    lines = members(content)["events.jsonl"]
    assert lines.count(b'"seq":') == len(seqs)
    assert (b"user_7" in lines) == ("withhold" not in selected)


@pytest.mark.usefixtures("sent")
def test_what_was_erased_is_proved_without_its_content(
    client: CollectorClient, device: DeviceTree, tmp_path: Path
) -> None:
    """The event that names it comes along; no byte of the content does."""
    secret = device.event({"role": "user", "content": PIN}, session_id="pin", user_id="user_7")
    client.send(device, [secret, device.head(11)])
    data = {"subject": "0" * 64, "event_ids": [secret["event_id"]]}
    erasure = device.event(data, type=ERASURE, session_id=None)
    other = device.event({**data, "event_ids": []}, type=ERASURE, session_id=None)
    client.send(device, [erasure, other, device.head(13)])
    content = bundle(client, device, session_id="pin")
    report = check(client, device, content, tmp_path)
    assert report.verdict == "PROVEN", report
    found = members(content)
    assert found["removals.jsonl"].count(b"\n") == 1
    assert b'"sealed"' in found["events.jsonl"]
    assert not [name for name, raw in found.items() if PIN.encode() in raw or b"user_7" in raw]


def test_a_change_of_the_key_is_proved(
    client: CollectorClient, device: DeviceTree, tmp_path: Path
) -> None:
    """Who trusts the old key alone trusts the new one."""
    client.send(device, [device.event(), device.head()])
    trusted, old, new = device.verifier_key, device.key, new_key()
    assert old is not None
    change = {"note": note.key_change(device.outbox_id, old, new)}
    event = device.event(change, type="integrity.key_changed", session_id=None)
    device.key = new
    client.send(device, [event, device.head(1)])
    path = tmp_path / "bundle.zip"
    path.write_bytes(bundle(client, device, session_id="session-1"))
    assert verify(path, Trust((str(trusted),))).verdict == "PROVEN"
    assert verify(path, Trust((new_key().public_key.hex(),))).verdict == "NOT PROVEN"


def test_numbers_whose_digest_the_device_lost_are_not_shown(
    client: CollectorClient, device: DeviceTree, tmp_path: Path
) -> None:
    """Although the collector has them: under the head, nothing is said of them."""
    events = device.events(6)
    for seq in (2, 3):
        device.kept.of[seq] = bytes(32)
    client.send(device, [*events, device.head(unknown=[[2, 3]])])
    content = bundle(client, device, session_id="session-1")
    assert check(client, device, content, tmp_path).verdict == "PROVEN"
    assert members(content)["events.jsonl"].count(b"\n") == 4
    whole = bundle(client, device, first_seq=1, last_seq=6, complete=True)
    assert check(client, device, whole, tmp_path).verdict == "PROVEN"


def test_of_a_forked_outbox_only_the_cosigned_history_is_proved(
    client: CollectorClient, device: DeviceTree, tmp_path: Path
) -> None:
    """The other one's events are kept, but are under no head."""
    client.send(device, [*device.events(3), device.head()])
    clone = device.copy()
    client.send(device, [device.event(), device.head(3)])
    client.send(clone, [clone.event({"content": "of the clone"}), clone.head(3)])
    for last in (5, 3):
        content = bundle(client, device, first_seq=1, last_seq=last)
        assert check(client, device, content, tmp_path).verdict == "PROVEN"
    content = bundle(client, device, session_id="session-1")
    assert b"of the clone" not in members(content)["events.jsonl"]


def test_a_bundle_is_for_the_client_and_for_operators(
    client: CollectorClient, either_collector: CollectorProcess, device: DeviceTree
) -> None:
    """Another client's key opens nothing of it."""
    client.send(device, [device.event(), device.head()])
    wanted = {"outbox_id": device.outbox_id, "session_id": "session-1"}
    operator = CollectorClient(client.url, client.client_id, either_collector.create_key(None))
    assert asked(operator, "/v1/evidence", **wanted).ok
    other = either_collector.client(f"client-{uuid.uuid4()}")
    other.send(EventChain(), EventChain().events(1))
    assert refused(asked(other, "/v1/evidence", **wanted)) == (404, "not_found")
    named = {**wanted, "client_id": client.client_id}
    assert refused(asked(other, "/v1/evidence", **named)) == (403, "client_mismatch")
    other.headers["Authorization"] = "Bearer x"
    assert refused(asked(other, "/v1/evidence", **wanted)) == (401, "invalid_key")


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, (422, "invalid_query")),
        ({"session_id": "a", "since": 1}, (422, "invalid_query")),
        ({"first_seq": 1}, (422, "invalid_query")),
        ({"last_seq": 1}, (422, "invalid_query")),
        ({"first_seq": 0, "last_seq": 1}, (422, "invalid_query")),
        ({"session_id": ""}, (422, "invalid_query")),
        ({"session_id": "a", "withhold": "all"}, (422, "invalid_query")),
        ({"session_id": "nobody's"}, (404, "not_found")),
        ({"first_seq": 12, "last_seq": 13}, (404, "not_found")),
        ({"first_seq": 5, "last_seq": 2}, (404, "not_found")),
        ({"until": 5}, (404, "not_found")),
    ],
)
def test_what_cannot_be_selected_is_refused(
    client: CollectorClient,
    device: DeviceTree,
    wanted: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    """One selection is needed, of what a cosigned head covers."""
    answer = asked(client, "/v1/evidence", outbox_id=device.outbox_id, **wanted)
    assert refused(answer) == expected


def test_without_a_cosigned_head_there_is_no_evidence(client: CollectorClient) -> None:
    """The chain alone is none that a third party can check."""
    device = DeviceTree()
    client.send(device, device.events(3))
    answer = asked(client, "/v1/evidence", outbox_id=device.outbox_id, session_id="session-1")
    assert refused(answer) == (404, "not_found")
    assert "cosigned" in answer.json()["error"]["message"]


def test_a_bundle_is_bounded(client: CollectorClient, device: DeviceTree) -> None:
    """In bytes; half of it can be had."""
    long = {"role": "user", "content": "x" * 1_000_000}
    for _ in range(9):
        client.send(device, [device.event(long)])
    client.send(device, [device.head()])
    wanted = {"outbox_id": device.outbox_id, "first_seq": 1}
    assert refused(asked(client, "/v1/evidence", **wanted, last_seq=9)) == (422, "invalid_query")
    assert asked(client, "/v1/evidence", **wanted, last_seq=4).ok
