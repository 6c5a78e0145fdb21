"""Heads on their way from a device to its witness: the event that carries one, and what is signed.

A device logs its head as an event ``integrity.checkpoint``. The witness signs it if it is proved to
extend the last one that it signed, and never two heads of which neither extends the other.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.evidence import note
from tracker.evidence.tree import encode_hashes
from tracker.evidence.verifier import (
    ED25519,
    Checkpoint,
    Key,
    Note,
    NotProvenError,
    decode_hashes,
    head_in,
    is_extension,
    parse_note,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.evidence.keys import Signer
    from tracker.evidence.tree import Tree


class Claim(NamedTuple):
    """What an event ``integrity.checkpoint`` says.

    Attributes:
        head: The head; its note may be signed, which is not verified yet.
        text: The note as it stands in the event: without a signature, only the checkpoint's text.
        old_size: Size of the head that this one is proved to extend; 0 for the empty tree.
        consistency: The proof.
    """

    head: Checkpoint
    text: str
    old_size: int
    consistency: Sequence[bytes]


class Judgement(Enum):
    """What a witness makes of a head."""

    EXTENDS = "extends"
    """It extends the last one: sign it."""
    KNOWN = "known"
    """It is the last one."""
    OLDER = "older"
    """It is smaller than the last one: the device was set back, or the event is late."""
    UNPROVEN = "unproven"
    """Nothing shows that it extends the last one; the device has to prove it from there."""
    CONTRADICTS = "contradicts"
    """It has the size of the last one and another root: there are two histories."""


def claim(outbox_id: str, tree: Tree, signer: Signer | None, old_size: int = 0) -> dict[str, Any]:
    """Return the data of the event by which a device claims a head.

    Args:
        outbox_id: The outbox.
        tree: Its tree at the head's size.
        signer: The device's key, or None: then the witness's signature stands alone.
        old_size: Size of the last head that the witness signed, as its receipt says; 0 if none.

    Raises:
        TreeError: if digests are missing, or the tree is smaller than the witness's.
    """
    text = note.checkpoint_text(outbox_id, tree.size, tree.root())
    data = {
        "note": text,
        "old_size": old_size,
        "consistency": encode_hashes(tree.consistency(old_size)),
    }
    if signer is None:
        return data
    name = note.origin(outbox_id)
    data["note"] = note.signed(text, [note.signature(text, name, signer)])
    return {**data, "key_id": Key(name, ED25519, signer.public_key).id.hex()}


def read(data: Mapping[str, Any], outbox_id: str) -> Claim:
    """Return what the data of an event ``integrity.checkpoint`` of an outbox claims.

    Raises:
        NotProvenError: if it is not of that form, or names another outbox.
    """
    text, old_size = data.get("note"), data.get("old_size")
    if not isinstance(text, str) or type(old_size) is not int or not 0 <= old_size < 2**63:
        raise NotProvenError("this is not the event of a checkpoint")
    try:
        parsed = parse_note(text.encode()) if "\n\n" in text else Note(text, ())
        consistency = decode_hashes(data["consistency"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise NotProvenError("this is not the event of a checkpoint") from None
    head = head_in(parsed)
    if head.note.text != note.checkpoint_text(outbox_id, head.size, head.root):
        raise NotProvenError("this is not a checkpoint of this outbox")
    return Claim(head, text, old_size, consistency)


def judge(claimed: Claim, last: tuple[int, bytes] | None) -> Judgement:
    """Return what a witness makes of a head.

    Args:
        claimed: What the device claims.
        last: Size and root of the last head of this outbox that the witness signed, if any.
    """
    if last is None:
        return Judgement.EXTENDS
    head, (size, root) = claimed.head, last
    if head.size < size:
        return Judgement.OLDER
    if head.size == size:
        return Judgement.KNOWN if head.root == root else Judgement.CONTRADICTS
    proved = is_extension(size, root, head.size, head.root, claimed.consistency)
    return Judgement.EXTENDS if proved and claimed.old_size == size else Judgement.UNPROVEN


def cosigned(claimed: Claim, name: str, signer: Signer, time: int) -> str:
    """Return the note of a head with the witness's signature; the device's stays in it.

    Args:
        claimed: The head, which was judged to extend the last one.
        name: The witness's name.
        signer: The witness's key.
        time: The witness's clock, in Unix seconds.
    """
    line = note.cosignature(claimed.head.note.text, name, signer, time)
    if claimed.head.note.signatures:
        return note.with_signature(claimed.text, line)
    return note.signed(claimed.text, [line])
