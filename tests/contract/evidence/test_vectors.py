"""The formats of evidence are what `vectors.json` says: for all who read or write them.

Part of it was made by others: the RFCs, C2SP, the Go project, Certificate Transparency, and an
independent implementation in Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.evidence.trees import Kept, digest
from tracker import canonical
from tracker.evidence import note
from tracker.evidence.tree import Frontier, Tree
from tracker.evidence.verifier import (
    NotProvenError,
    is_extension,
    is_included,
    is_signed,
    leaf_hash,
    parse_checkpoint,
    parse_key,
    parse_note,
    read_event,
    signers,
)

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text("utf-8"))
ANOTHER = VECTORS["another"]
ROOTS = {int(size): bytes.fromhex(root) for size, root in ANOTHER["roots"].items()}


class Seed:
    """A signer of a known secret key."""

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def path_of(case: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(each) for each in case["path"]]


@pytest.mark.parametrize("case", VECTORS["ed25519"])
def test_signatures_of_rfc_8032(case: dict[str, str]) -> None:
    """Section 7.1."""
    public, message, signature = (
        bytes.fromhex(case[name]) for name in ("public_key", "message", "signature")
    )
    assert is_signed(public, message, signature)
    assert not is_signed(public, message + b"!", signature)


def test_trees_of_certificate_transparency() -> None:
    """Its leaves are of any length, ours of 32 bytes; the hashes are the same."""
    case = VECTORS["certificate_transparency"]
    frontier = Frontier()
    for leaf, root in zip(case["leaves"], case["roots"], strict=True):
        frontier.extend([bytes.fromhex(leaf)])
        assert frontier.root().hex() == root


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["of"])
def test_notes_that_others_published(case: dict[str, str]) -> None:
    """They are verified, and where the secret key is known, written alike."""
    key, read = parse_key(case["key"]), parse_note(case["note"].encode())
    assert signers(read, [key]) == {key: None}
    if "seed" in case:
        line = note.signature(read.text, key.name, Seed(case["seed"]))
        assert note.signed(read.text, [line]) == case["note"]


@pytest.mark.parametrize("text", VECTORS["keys"])
def test_keys_of_witnesses_that_others_published(text: str) -> None:
    """A key is written as it was read."""
    assert str(parse_key(text)) == text


def test_a_checkpoint_that_another_implementation_signed_and_cosigned() -> None:
    """Both signatures are verified, the witness's with its time."""
    checkpoint = parse_checkpoint(ANOTHER["note"].encode())
    key, witness = parse_key(ANOTHER["key"]), parse_key(ANOTHER["witness"])
    found = signers(checkpoint.note, [key, witness])
    assert found == {key: None, witness: ANOTHER["cosigned_at"]}
    assert checkpoint.root == ROOTS[checkpoint.size]
    later = ANOTHER["note"].replace("tracker.outbox", "tracker.outboy")
    with pytest.raises(NotProvenError):
        signers(parse_note(later.encode()), [witness])


def test_our_checkpoints_are_those_of_another_implementation() -> None:
    """Byte for byte: it takes what we write."""
    outbox_id = ANOTHER["key"].partition("+")[0].removeprefix("tracker.outbox/")
    log, witness = Seed(VECTORS["seeds"]["log"]), Seed(VECTORS["seeds"]["witness"])
    text = note.checkpoint_text(outbox_id, 1000, ROOTS[1000])
    name = "witness.example/w1"
    lines = [
        note.signature(text, note.origin(outbox_id), log),
        note.cosignature(text, name, witness, ANOTHER["cosigned_at"]),
    ]
    assert note.signed(text, lines) == ANOTHER["note"]
    assert note.with_signature(note.signed(text, lines[:1]), lines[1]) == ANOTHER["note"]
    assert str(note.device_key(outbox_id, log.public_key)) == ANOTHER["key"]
    assert str(note.witness_key(name, witness.public_key)) == ANOTHER["witness"]


def test_roots_and_paths_of_another_implementation() -> None:
    """They are taken, and ours are the same."""
    kept = Kept(1000)
    for size, root in ROOTS.items():
        assert Tree(kept, size).root() == root
    for case in ANOTHER["inclusion"]:
        seq, size, path = case["seq"], case["size"], path_of(case)
        assert is_included(leaf_hash(digest(seq)), seq - 1, size, path, ROOTS[size])
        assert Tree(kept, size).inclusion(seq) == path
    for case in ANOTHER["consistency"]:
        old, size, path = case["old_size"], case["size"], path_of(case)
        assert Tree(kept, size).consistency(old) == path
        if old in ROOTS:
            assert is_extension(old, ROOTS[old], size, ROOTS[size], path)


@pytest.mark.parametrize("case", VECTORS["digests"])
def test_digests_of_version_2(case: dict[str, Any]) -> None:
    """The same whether all is shown, or it is erased, or user id or data or both are withheld."""
    event = case["event"]
    head = {name: event[name] for name in event if name not in ("user_id", "data", "salt")}
    user, data = {"user_id": event["user_id"]}, {"data": event["data"]}
    no_user, no_data = ({name: case[name]} for name in ("user_sealed", "data_sealed"))
    forms = {
        "whole": [event, {**event, "seq": 7}],
        "erased": [{**head, "user_id": None, "data": {"erased": True}, "sealed": case["sealed"]}],
        "withheld": [
            {**head, **no_user, **data, "data_salt": case["data_salt"]},
            {**head, **user, **no_data, "user_salt": case["user_salt"]},
            {**head, **no_user, **no_data},
        ],
        "digest": [{"digest": case["digest"]}],
    }
    for kind, events in forms.items():
        for each in events:
            reading = read_event(each)
            assert (reading.digest.hex(), reading.kind) == (case["digest"], kind)
    changed = read_event({**event, "timestamp_ms": event["timestamp_ms"] + 1})
    assert changed.digest.hex() != case["digest"]


@pytest.mark.parametrize("case", VECTORS["digests"])
def test_trackers_compute_the_same_digests(case: dict[str, Any]) -> None:
    """When they store an event, and of what an erasure leaves of it."""
    event = dict(case["event"])
    salt = bytes.fromhex(event.pop("salt"))
    for name in ("data", "context", "trace"):
        if name in event:
            event[name] = canonical.encode(event[name])
    assert canonical.digest_of(**event, salt=salt) == case["digest"]
    erased = {**event, "user_id": None, "data": canonical.encode({"erased": True})}
    sealed = bytes.fromhex(case["sealed"])
    assert canonical.digest_of(**erased, sealed=sealed) == case["digest"]


@pytest.mark.parametrize("case", VECTORS["version_1"])
def test_digests_of_version_1(case: dict[str, Any]) -> None:
    """Those that outboxes had before; one that was erased has nothing but its digest."""
    event = case["event"]
    assert read_event(event)[:] == (bytes.fromhex(case["digest"]), "whole")
    envelope = canonical.envelope(**{**event, "data": canonical.encode(event["data"])})
    assert canonical.digest(envelope) == case["digest"]
    erased = {**event, "data": {"erased": True}, "digest": case["digest"]}
    assert read_event(erased)[:] == (bytes.fromhex(case["digest"]), "unchecked")


@pytest.mark.parametrize(
    "change",
    [
        {"note": "approved"},
        {"salt": "00"},
        {"salt": "0" * 31 + "A"},
        {"salt": None},
        {"user_id": 7},
        {"data": float("nan")},
        {"digest": "00" * 32},
        {"sealed": "00" * 64},
    ],
)
def test_an_event_with_anything_else_is_refused(change: dict[str, Any]) -> None:
    """A field that no digest covers would be believed."""
    event = VECTORS["digests"][0]["event"]
    with pytest.raises(NotProvenError, match="not an event"):
        read_event({**event, **change})


@pytest.mark.parametrize(
    "change", [{"user_id": "user_7"}, {"data": {"content": "forged"}}, {"sealed": "00" * 32}]
)
def test_an_erased_event_says_nothing_more(change: dict[str, Any]) -> None:
    """What stood there would be covered by no digest."""
    case = VECTORS["digests"][0]
    head = {name: each for name, each in case["event"].items() if name != "salt"}
    gone = {**head, "user_id": None, "data": {"erased": True}, "sealed": case["sealed"]}
    assert read_event(gone).kind == "erased"
    with pytest.raises(NotProvenError, match="not an event"):
        read_event({**gone, **change})


@pytest.mark.parametrize("name", sorted(VECTORS["digests"][0]["event"].keys() - {"salt"}))
def test_an_event_that_lacks_a_field_is_refused(name: str) -> None:
    """With a salt and without one."""
    event = dict(VECTORS["digests"][0]["event"])
    del event[name]
    with pytest.raises(NotProvenError, match="not an event"):
        read_event(event)
    del event["salt"]
    with pytest.raises(NotProvenError, match="not an event"):
        read_event(event)
