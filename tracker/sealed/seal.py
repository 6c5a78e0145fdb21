"""`Seal`: what only somebody can make who has an API key, or the hash that a collector keeps."""

from __future__ import annotations

import hashlib
import hmac

_NAME = b"tracker key name"
_NAME_DIGITS = 16


class Seal:
    """HMAC-SHA256 under the SHA-256 of an API key. Neither of them can be found out from it.

    Args:
        key_hash: The 32 bytes of `hash_of` the key.
    """

    def __init__(self, key_hash: bytes) -> None:
        self._key_hash = key_hash

    @classmethod
    def of(cls, api_key: str) -> Seal:
        """Return the seal of an API key."""
        return cls(hash_of(api_key))

    @property
    def name(self) -> str:
        """The name of the key, 16 hex digits, by which a sealed file says whose seal it has."""
        return hmac.new(self._key_hash, _NAME, hashlib.sha256).hexdigest()[:_NAME_DIGITS]

    def over(self, digest: bytes) -> str:
        """Return the seal over a SHA-256, as 64 hex digits."""
        return hmac.new(self._key_hash, digest, hashlib.sha256).hexdigest()


def hash_of(api_key: str) -> bytes:
    """Return the SHA-256 of an API key.

    A plain hash is sufficient: a key has 256 random bits and, unlike a password, cannot be guessed.
    """
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
