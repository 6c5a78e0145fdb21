"""An outbox as the wire sees it that says heads of its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.collector import EventChain
from tests.unit.evidence.trees import Kept
from tracker.events import INTEGRITY_CHECKPOINT
from tracker.evidence import note
from tracker.evidence.keys import PrivateKey
from tracker.evidence.tree import Tree

if TYPE_CHECKING:
    from tracker.evidence.verifier import Key


def new_key() -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.generate())


class DeviceTree(EventChain):
    """Makes events, and among them heads over those before, signed if there is a key."""

    def __init__(self, key: PrivateKey | None = None) -> None:
        super().__init__()
        self.key = key
        self.kept = Kept(0)

    @property
    def verifier_key(self) -> Key:
        assert self.key is not None
        return note.device_key(self.outbox_id, self.key.public_key)

    def event(
        self, data: dict[str, Any] | None = None, *, salted: bool = True, **fields: Any
    ) -> dict[str, Any]:
        event = super().event(data, salted=salted, **fields)
        self.kept.of[event["seq"]] = bytes.fromhex(event["digest"])
        return event

    def note(self, size: int | None = None) -> str:
        """Return the head over the first `size` events, all by default."""
        size = self.seq if size is None else size
        text = note.checkpoint_text(self.outbox_id, size, Tree(self.kept, size).root())
        if self.key is None:
            return f"{text}\n"
        line = note.signature(text, note.origin(self.outbox_id), self.key)
        return note.signed(text, [line])

    def head(self, old_size: int = 0, size: int | None = None, **changes: Any) -> dict[str, Any]:
        """Return the next event, which says a head; `changes` replace parts of its data."""
        size = self.seq if size is None else size
        data = {
            "note": self.note(size),
            "old_size": old_size,
            "consistency": [each.hex() for each in Tree(self.kept, size).consistency(old_size)],
            "gaps": "0" * 64,
            **changes,
        }
        if self.key is not None:
            data.setdefault("key", str(self.verifier_key))
        return self.event(data, type=INTEGRITY_CHECKPOINT, agent_id=None, session_id=None)

    def copy(self) -> DeviceTree:
        """Return a clone, which goes on from here by itself."""
        clone = DeviceTree(self.key)
        clone.outbox_id, clone.seq, clone.chain = self.outbox_id, self.seq, self.chain
        clone.kept.of = dict(self.kept.of)
        return clone
