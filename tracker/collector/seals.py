"""The column `seal` of a stored event: its salt, or what an erasure has left of user and data.

Both take the same room, so that an erasure in SQLite overwrites the old bytes in place.
"""

from __future__ import annotations

from tracker import canonical
from tracker.collector.tables import SEAL_LENGTH

_SALT_LENGTH = 2 * canonical.SALT_BYTES
_ZEROS = "0" * (SEAL_LENGTH - _SALT_LENGTH)
"""What follows a salt. No two commitments end with so many zeros."""


def packed(salt: str) -> str:
    """Return the seal of an event with a salt, which has 32 hex digits."""
    return salt + _ZEROS


def sealed_as(user_id: str | None, data: str, seal: str) -> str:
    """Return the seal of the event after its erasure."""
    salt = unpacked(seal)[0]
    return seal if salt is None else canonical.seal(user_id, data, salt).hex()


def unpacked(seal: str | None) -> tuple[bytes | None, bytes | None]:
    """Return the salt and the commitments of an event, of which it has one or none."""
    if seal is None:
        return None, None
    if seal.endswith(_ZEROS):
        return bytes.fromhex(seal[:_SALT_LENGTH]), None
    return None, bytes.fromhex(seal)
