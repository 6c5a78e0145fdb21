"""Writing signed notes, checkpoints and cosignatures as C2SP defines them.

They are read in `verifier`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tracker.evidence.verifier import (
    COSIGNATURE,
    ED25519,
    KEY_CHANGE,
    ORIGIN,
    Key,
    cosigned_message,
    parse_note,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker.evidence.keys import Signer


def origin(outbox_id: str) -> str:
    """Return the first line of an outbox's checkpoints, which is also its key's name."""
    return ORIGIN + outbox_id


def device_key(outbox_id: str, public_key: bytes) -> Key:
    """Return the key by which a device signs the checkpoints of an outbox."""
    return Key(origin(outbox_id), ED25519, public_key)


def witness_key(name: str, public_key: bytes) -> Key:
    """Return the key by which a witness of that name signs checkpoints."""
    return Key(name, COSIGNATURE, public_key)


def checkpoint_text(outbox_id: str, size: int, root: bytes) -> str:
    """Return the text of a checkpoint: the head of the tree at a size."""
    return f"{origin(outbox_id)}\n{size}\n{base64.b64encode(root).decode()}\n"


def signature(text: str, name: str, signer: Signer) -> str:
    """Return the signature line of a key over a note's text."""
    return _line(Key(name, ED25519, signer.public_key), signer.sign(text.encode()))


def cosignature(text: str, name: str, signer: Signer, time: int) -> str:
    """Return the signature line of a witness over a checkpoint's text.

    Args:
        text: The checkpoint's text, without signatures.
        name: The witness's name.
        signer: Its key.
        time: Its clock, in Unix seconds.
    """
    signed = signer.sign(cosigned_message(text, time))
    key = Key(name, COSIGNATURE, signer.public_key)
    return _line(key, time.to_bytes(8, "big") + signed)


def signed(text: str, lines: Iterable[str]) -> str:
    """Return the note of a text, which ends in a newline, and of signature lines.

    Raises:
        NotProvenError: if this is not a note, such as one without a signature.
    """
    note = text + "\n" + "".join(f"{line}\n" for line in lines)
    parse_note(note.encode())
    return note


def with_signature(note: str, line: str) -> str:
    """Return a note with one more signature line."""
    return f"{note}{line}\n"


def key_change(outbox_id: str, old: Signer, new: Signer) -> str:
    """Return the note by which a device hands over from one key to the next, signed by both."""
    name = origin(outbox_id)
    keys = [Key(name, ED25519, each.public_key) for each in (old, new)]
    text = f"{KEY_CHANGE}{outbox_id}\n{keys[0]}\n{keys[1]}\n"
    return signed(text, [signature(text, name, each) for each in (old, new)])


def _line(key: Key, value: bytes) -> str:
    return f"\u2014 {key.name} {base64.b64encode(key.id + value).decode()}"
