"""Heads on their way from a device to its witness: the event that carries one, and what is signed.

A device logs its head as an event ``integrity.checkpoint``. The witness signs it if it is proved to
extend the last one that it signed, and never two heads of which neither extends the other.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.evidence import note
from tracker.evidence.keys import is_signed
from tracker.evidence.verifier import (
    Checkpoint,
    Key,
    Note,
    NotProvenError,
    head_in,
    is_extension,
    parse_key,
    parse_key_change,
    parse_note,
    signers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker.evidence.keys import Signer
    from tracker.evidence.tree import Tree

_LONGEST_NOTE = 4_096
_MOST_SIGNATURES = 4
_MOST_HASHES = 128  # twice as many as the largest tree needs
_MOST_RANGES = 1_000
_HASH = re.compile("[0-9a-f]{64}")


class Claim(NamedTuple):
    """What an event ``integrity.checkpoint`` says.

    Attributes:
        head: The head; its note may be signed, which is not verified yet.
        note: The note as it stands in the event: without a signature, the checkpoint's text and an
            empty line.
        key: The device's key, or None if the event does not name it.
        old_size: Size of the head that this one is proved to extend; 0 for the empty tree.
        consistency: The proof.
        unknown: Ranges of seqs, both ends included, whose leaf is `tree.UNKNOWN`.
    """

    head: Checkpoint
    note: str
    key: Key | None
    old_size: int
    consistency: tuple[bytes, ...]
    unknown: tuple[tuple[int, int], ...] = ()

    def is_signed_by(self, key: Key) -> bool:
        """Return True if the note is signed by this key of the device.

        Raises:
            ConfigurationError: if the extra is missing.
        """
        try:
            return bool(signers(self.head.note, [key], is_signed))
        except NotProvenError:
            return False


class Judgement(Enum):
    """What a witness makes of a head."""

    EXTENDS = "extends"
    """It extends the last one: sign it."""
    KNOWN = "known"
    """It is the last one."""
    OLDER = "older"
    """It is smaller than the last one: the device was set back, or the event is late."""
    UNPROVEN = "unproven"
    """Its proof begins at another head than the last one, which the device has not seen yet."""
    CONTRADICTS = "contradicts"
    """It has the size of the last one and another root, or is said to extend it and does not: there
    are two histories."""


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
        "note": f"{text}\n",
        "old_size": old_size,
        "consistency": [each.hex() for each in tree.consistency(old_size)],
    }
    if signer is None:
        return data
    name = note.origin(outbox_id)
    data["note"] = note.signed(text, [note.signature(text, name, signer)])
    return {**data, "key": str(note.device_key(outbox_id, signer.public_key))}


def read(data: Mapping[str, Any], outbox_id: str) -> Claim:
    """Return what the data of an event ``integrity.checkpoint`` of an outbox claims.

    Raises:
        NotProvenError: if it is not of that form, or names another outbox.
    """
    try:
        head = _head(data["note"], outbox_id)
        return Claim(
            head,
            data["note"],
            _key(data.get("key"), outbox_id),
            _number(data["old_size"], 0),
            _hashes(data["consistency"]),
            _ranges(data.get("unknown", [])),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotProvenError("this is not the event of a checkpoint of this outbox") from None


def read_key_change(data: Mapping[str, Any], outbox_id: str) -> tuple[Key, Key]:
    """Return old and new key that the data of an event ``integrity.key_changed`` names.

    Both have signed it.

    Raises:
        NotProvenError: if it is not of that form, or is about another outbox.
        ConfigurationError: if the extra is missing.
    """
    try:
        named, old, new = parse_key_change(_short(data["note"]).encode(), is_signed)
    except (KeyError, TypeError, ValueError):
        raise NotProvenError("this is not the event of a key change") from None
    if named != outbox_id or new != note.device_key(outbox_id, new.public_key):
        raise NotProvenError("this is not a key change of this outbox")
    return old, new


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
    if claimed.old_size != size:
        return Judgement.UNPROVEN
    proved = is_extension(size, root, head.size, head.root, claimed.consistency)
    return Judgement.EXTENDS if proved else Judgement.CONTRADICTS


def cosigned(claimed: Claim, name: str, signer: Signer, time: int) -> str:
    """Return the note of a head with the witness's signature; the device's stays in it.

    Args:
        claimed: The head, which was judged to extend the last one.
        name: The witness's name.
        signer: The witness's key.
        time: The witness's clock, in Unix seconds.
    """
    line = note.cosignature(claimed.head.note.text, name, signer, time)
    return note.with_signature(claimed.note, line)


def _head(said: Any, outbox_id: str) -> Checkpoint:
    text = _short(said)
    bare = text.endswith("\n\n")
    head = head_in(Note(text[:-1], ()) if bare else parse_note(text.encode()))
    # Lines of other names might be taken for somebody's who never signed.
    others = {each.name for each in head.note.signatures} - {head.origin}
    expected = note.checkpoint_text(outbox_id, head.size, head.root)
    if head.note.text != expected or head.size < 1 or others:
        raise NotProvenError("not a head of this outbox")
    return head


def _short(said: Any) -> str:
    if not isinstance(said, str) or len(said) > _LONGEST_NOTE:
        raise NotProvenError("not a note")
    if said.count("\n\u2014 ") > _MOST_SIGNATURES:
        raise NotProvenError("a note with too many signatures")
    return said


def _key(said: Any, outbox_id: str) -> Key | None:
    if said is None:
        return None
    key = parse_key(_short(said))
    if key != note.device_key(outbox_id, key.public_key):
        raise NotProvenError("not a key of this outbox")
    return key


def _hashes(said: Any) -> tuple[bytes, ...]:
    if not isinstance(said, list) or len(said) > _MOST_HASHES:
        raise NotProvenError("not a proof")
    if not all(_HASH.fullmatch(each) for each in said):
        raise NotProvenError("not a proof")
    return tuple(bytes.fromhex(each) for each in said)


def _ranges(said: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(said, list) or len(said) > _MOST_RANGES:
        raise NotProvenError("not ranges")
    last, ranges = 0, []
    for first, end in said:
        last = _number(end, _number(first, last + 1))
        ranges.append((first, last))
    return tuple(ranges)


def _number(said: Any, least: int) -> int:
    if type(said) is not int or not least <= said < 2**63:
        raise NotProvenError("not a number in its place")
    return said
