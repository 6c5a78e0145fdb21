"""Which proofs of the bookkeeping hold: removals, and the newest seq."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.outbox.integrity.chain import KeyMemory, Problem, Unproven
from tracker.outbox.store import gaps, ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_FORGED = "by somebody without the key"


class Proofs:
    """Checks what only a process with the chain key can have written.

    Values may be of any type: somebody may have written them by hand.

    Args:
        keys: The known chain keys: the current one, and perhaps former ones.
        memory: What the outbox remembers about its key.
        outbox_id: The outbox that the proofs were made in.
    """

    def __init__(self, keys: Sequence[bytes], memory: KeyMemory, outbox_id: object) -> None:
        self._keys = tuple(keys)
        self._remembered = memory.check
        self._outbox_id = outbox_id

    def gap(self, first: int, last: int, chain: object, proof: object) -> Problem | Unproven | None:
        """Return what is wrong with the removal of events, or None."""
        doubt = self._doubt(proof, gaps.GAP, first, last, chain)
        if doubt == _FORGED:
            shown = f"event {first} was" if first == last else f"events {first} to {last} were"
            return Problem(first, "gap", f"{shown} removed {doubt}")
        return Unproven(first, last, f"removed {doubt}") if doubt else None

    def account(
        self, statement: Sequence[object], proof: object, last: int
    ) -> Problem | Unproven | None:
        """Return what is wrong with the account, or None.

        Args:
            statement: All that it says.
            proof: Its proof.
            last: The newest seq that is known.
        """
        doubt = self._doubt(proof, ledger.ACCOUNT, *statement)
        if doubt == _FORGED:
            return Problem(None, "account", f"the loss account was written {doubt}")
        if doubt:
            reason = f"the loss account was written {doubt}, so nothing proves that none followed"
            return Unproven(last, last, reason)
        return None

    def _doubt(self, proof: object, kind: str, *values: object) -> str | None:
        """Return why nothing proves that a process with the key wrote these values, or None."""
        if proof is None:
            return "without the chain key" if self._keys or self._remembered else None
        if not self._keys:
            return "under a key, and none is given"
        if any(_holds(proof, key, kind, self._outbox_id, *values) for key in self._keys):
            return None
        if self._remembered in (0, *map(canonical.key_check, self._keys)):
            return _FORGED
        return "under another key than the one given"


def renew(connection: Connection, key: bytes | None, old_id: str, new_id: str) -> None:
    """Make the proofs of removals again for a copy of an outbox that gets another id.

    One that does not hold under the key stays as it is, so that it does not hold in the copy
    either. Without a key the copy has no proofs: nothing in it is proven, and nothing wrong.
    """
    if key is None:
        connection.exec_driver_sql("UPDATE gaps SET proof = NULL")
        return
    query = "SELECT first_seq, last_seq, chain, proof FROM gaps WHERE proof IS NOT NULL"
    for *values, proof in connection.exec_driver_sql(query).all():
        if _holds(proof, key, gaps.GAP, old_id, *values):
            made = canonical.proof(key, gaps.GAP, new_id, *values)
            update = "UPDATE gaps SET proof = ? WHERE first_seq = ?"
            connection.exec_driver_sql(update, (made, values[0]))


def _holds(proof: object, key: bytes, *said: Any) -> bool:
    try:
        return canonical.proof(key, *said) == proof
    except (TypeError, ValueError):  # written by hand
        return False
