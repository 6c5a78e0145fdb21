"""Heads between a device and its witness: what is claimed, judged and signed."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.evidence.trees import Kept
from tracker.evidence import note
from tracker.evidence.heads import Claim, Judgement, claim, cosigned, judge, read
from tracker.evidence.keys import PrivateKey
from tracker.evidence.tree import Tree
from tracker.evidence.verifier import NotProvenError, parse_checkpoint, signers

OUTBOX_ID = "0199c0de-0000-7000-8000-000000000001"
DEVICE, WITNESS = (
    PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (1, 2)
)
NAME = "witness.example/w1"


def tree(size: int, *, forked_at: int | None = None) -> Tree:
    kept = Kept(size)
    if forked_at is not None:
        kept.of[forked_at] = bytes(32)
    return Tree(kept, size)


def claimed(size: int, old_size: int = 0, **fork: Any) -> Claim:
    return read(claim(OUTBOX_ID, tree(size, **fork), DEVICE, old_size), OUTBOX_ID)


def last(size: int) -> tuple[int, bytes]:
    return size, tree(size).root()


@pytest.mark.parametrize("signer", [DEVICE, None])
def test_a_witness_signs_beside_the_device_or_alone(signer: PrivateKey | None) -> None:
    """A head without the device's signature is one that only the witness vouches for."""
    data = claim(OUTBOX_ID, tree(5), signer)
    found = read(data, OUTBOX_ID)
    assert (found.head.size, found.head.root, found.old_size) == (5, tree(5).root(), 0)
    signed = parse_checkpoint(cosigned(found, NAME, WITNESS, 1_790_000_000).encode())
    device = note.device_key(OUTBOX_ID, DEVICE.public_key)
    witness = note.witness_key(NAME, WITNESS.public_key)
    expected = {witness: 1_790_000_000} | ({} if signer is None else {device: None})
    assert signers(signed.note, [device, witness]) == expected
    assert data.get("key") == (None if signer is None else str(device))
    assert found.is_signed_by(device) == (signer is not None)


def test_each_head_that_extends_the_last_is_signed() -> None:
    """The first, and every other that is proved from the last one."""
    assert judge(claimed(5), None) is Judgement.EXTENDS
    for old in range(1, 20):
        for size in range(old + 1, 21):
            assert judge(claimed(size, old), last(old)) is Judgement.EXTENDS


def test_a_head_that_came_before_is_known() -> None:
    """An upload that is repeated changes nothing."""
    assert judge(claimed(5), last(5)) is Judgement.KNOWN
    assert judge(claimed(4), last(5)) is Judgement.OLDER


def test_no_second_history_is_signed() -> None:
    """Neither of the same size nor of a larger one, whatever it is said to extend."""
    assert judge(claimed(5, forked_at=2), last(5)) is Judgement.CONTRADICTS
    assert judge(claimed(9, 5, forked_at=2), last(5)) is Judgement.CONTRADICTS
    for old in (0, 4, 6):
        assert judge(claimed(9, old, forked_at=2), last(5)) is Judgement.UNPROVEN


def test_a_head_has_to_be_proved_from_the_last_one_that_was_signed() -> None:
    """From an earlier one it may be true, but it is not shown."""
    assert judge(claimed(9, 4), last(5)) is Judgement.UNPROVEN
    assert judge(claimed(9), last(5)) is Judgement.UNPROVEN
    relabelled = claimed(9, 4)._replace(old_size=5)
    assert judge(relabelled, last(5)) is Judgement.CONTRADICTS


@pytest.mark.parametrize(
    "change",
    [
        {"note": None},
        {"note": "approved"},
        {"note": "approved\n\napproved\n"},
        {"note": f"tracker.outbox/{OUTBOX_ID}\n5\n{base64.b64encode(bytes(32)).decode()}"},
        {"note": f"tracker.outbox/{OUTBOX_ID}\n5\n{base64.b64encode(bytes(32)).decode()}\nmore\n"},
        {"note": claim("another", tree(5), DEVICE)["note"]},
        {"note": "\ud800\n\n"},
        {"old_size": None},
        {"old_size": -1},
        {"old_size": True},
        {"old_size": 2**63},
        {"consistency": None},
        {"consistency": "AAAA"},
        {"consistency": ["AAAA"]},
        {"consistency": [None]},
        {"consistency": ["0" * 64] * 129},
        {"unknown": None},
        {"unknown": [[2, 1]]},
        {"unknown": [[1, 2], [2, 3]]},
        {"unknown": [[0, 1]]},
        {"unknown": [[1, 1, 1]]},
        {"unknown": [1]},
        {"key": 7},
        {"key": str(note.witness_key(NAME, WITNESS.public_key))},
    ],
)
def test_an_event_of_another_form_claims_nothing(change: dict[str, Any]) -> None:
    """Whatever a device sends, reading it raises nothing else."""
    with pytest.raises(NotProvenError):
        read({**claim(OUTBOX_ID, tree(5), DEVICE), **change}, OUTBOX_ID)


@pytest.mark.parametrize("missing", ["note", "old_size", "consistency"])
def test_an_event_that_lacks_a_field_claims_nothing(missing: str) -> None:
    """There is no default for any of them."""
    data = claim(OUTBOX_ID, tree(5), DEVICE)
    del data[missing]
    with pytest.raises(NotProvenError):
        read(data, OUTBOX_ID)
