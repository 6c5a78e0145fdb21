"""A device with an outbox, as far as evidence is concerned: events, tree, heads, keys."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.evidence.trees import Kept
from tracker.evidence import bundle, note
from tracker.evidence.contents import Contents, Head, session
from tracker.evidence.keys import PrivateKey
from tracker.evidence.tree import Frontier
from tracker.evidence.verifier import (
    Report,
    Trust,
    commit_data,
    commit_user,
    halves,
    read_event,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OUTBOX_ID = "0199c0de-0000-7000-8000-000000000001"
WITNESS = "witness.example/w1"
NOON = 1_790_000_000


def private_key(name: str) -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def an_event(seq: int, **fields: Any) -> dict[str, Any]:
    """Return an event as the wire has it, of version 2, in one of three sessions."""
    event = {
        "seq": seq,
        "event_id": f"0199c0de-0000-7000-8000-{seq:012x}",
        "type": "message.logged",
        "timestamp_ms": NOON * 1000 + seq,
        "agent_id": "agent_123",
        "session_id": f"order-{seq % 3}",
        "user_id": f"user_{seq % 3}",
        "data": {"role": "user", "content": f"Where is order {seq}?"},
        "salt": hashlib.sha256(b"%d" % seq).hexdigest()[:32],
        **fields,
    }
    return stored({name: value for name, value in event.items() if value is not ...})


def stored(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with digest and some chain value."""
    bare = {name: value for name, value in event.items() if name not in ("digest", "chain")}
    return {**bare, "digest": read_event(bare).digest.hex(), "chain": "0" * 64}


def erased(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of version 2 as erasure leaves it."""
    user_salt, data_salt = halves(bytes.fromhex(event["salt"]))
    sealed = commit_user(user_salt, event["user_id"]) + commit_data(data_salt, event["data"])
    left = {name: value for name, value in event.items() if name != "salt"}
    return {**left, "user_id": None, "data": {"erased": True}, "sealed": sealed.hex()}


class Device:
    """Its events, numbered from 1, and what it makes of them."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        self.events = {event["seq"]: event for event in events}
        self.key, self.witness = private_key("device"), private_key("witness")
        self.kept = Kept(0)
        self.kept.of = {seq: bytes.fromhex(each["digest"]) for seq, each in self.events.items()}

    @property
    def trust(self) -> Trust:
        """What somebody who checks knows from elsewhere."""
        key = note.device_key(OUTBOX_ID, self.key.public_key)
        witness = note.witness_key(WITNESS, self.witness.public_key)
        return Trust((str(key),), (str(witness),))

    def head(
        self, size: int | None = None, *, witnessed: bool = True, key: PrivateKey | None = None
    ) -> Head:
        """Return the head at a size, witnessed a second for each event after noon."""
        frontier = Frontier()
        size = len(self.events) if size is None else size
        frontier.extend(self.kept.of[seq] for seq in range(1, size + 1))
        text = note.checkpoint_text(OUTBOX_ID, size, frontier.root())
        lines = [note.signature(text, note.origin(OUTBOX_ID), key or self.key)]
        if witnessed:
            lines.append(note.cosignature(text, WITNESS, self.witness, NOON + size))
        return Head(note.signed(text, lines))

    def session(self, session_id: str = "order-1") -> list[dict[str, Any]]:
        return [each for each in self.events.values() if each["session_id"] == session_id]

    def bundle(self, *, signed: bool = True, **changes: Any) -> bytes:
        """Return the bundle of the session ``order-1``, with other contents on request."""
        contents = {
            "head": changes.get("head") or self.head(),
            "selection": session("order-1"),
            "events": self.session(),
            **changes,
        }
        file = io.BytesIO()
        signer = (note.origin(OUTBOX_ID), self.key) if signed else None
        bundle.write(file, Contents(**contents), self.kept, signer)
        return file.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return file.getvalue()


def with_manifest(content: dict[str, bytes]) -> bytes:
    """Return the bundle of changed members with a manifest that fits them, as a forger would."""
    lines = [
        f"{hashlib.sha256(each).hexdigest()}  {name}\n"
        for name, each in content.items()
        if name != "manifest.txt"
    ]
    manifest = f"tracker.bundle/{OUTBOX_ID}\n{''.join(lines)}"
    return zipped({**content, "manifest.txt": manifest.encode()})


def check(content: bytes, folder: Path, trust: Trust) -> Report:
    path = folder / "bundle.zip"
    path.write_bytes(content)
    return verify(path, trust)
