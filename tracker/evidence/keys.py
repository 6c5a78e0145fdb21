"""Keys that sign: in a file beside the outbox, or given as text.

The library `cryptography`, of the extra ``[evidence]``, is imported when a key is first used.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from tracker import late_imports
from tracker.errors import ConfigurationError
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LARGEST = 64 * 1024
_BEGIN, _END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"


class Signer(Protocol):
    """What signs: a `PrivateKey`, or a device that shows its key to nobody."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, of 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature over a message, of 64 bytes."""
        ...


class PrivateKey:
    """An Ed25519 private key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        # `public_bytes_raw` is missing in the versions that older distributions ship.
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature over a message, of 64 bytes."""
        return self._key.sign(message)


def can_sign() -> bool:
    """Return True if the extra ``[evidence]`` is installed; it is not imported."""
    return importlib.util.find_spec("cryptography") is not None


def load(path: Path) -> PrivateKey:
    """Return the key in a file: PKCS#8 in PEM, without a password.

    Raises:
        ConfigurationError: if there is no such file, it holds anything else, or the extra is
            missing.
    """
    try:
        # What is no file, such as a pipe that nobody writes, must not be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(_LARGEST) if is_file else b""
    except OSError as error:
        raise ConfigurationError(f"the signing key {path} cannot be read ({error})") from error
    return _read(content, f"the signing key {path}")


def load_or_create(path: Path) -> PrivateKey:
    """Return the key in a file, which is made on first use, readable for its owner only.

    Processes that start at the same moment agree on one key: the file appears complete or not at
    all, and the second process reads the key of the first.

    Raises:
        ConfigurationError: if the file can be neither read nor created, it holds anything else, or
            the extra is missing.
    """
    if not path.exists():
        content = _generate()
        try:
            # If another process is first, its key is used.
            with suppress(FileExistsError), whole_file(path, like=path) as file:
                file.write(content)
        except OSError as error:
            raise ConfigurationError(f"no signing key can be made at {path} ({error})") from error
    return load(path)


def from_text(text: str) -> PrivateKey:
    """Return the key that a setting holds: PKCS#8 in PEM, or only its base64, on one line.

    Raises:
        ConfigurationError: if it is anything else, or the extra is missing.
    """
    return _read(text.encode(errors="replace"), "signing_key")


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return True if an Ed25519 signature over a message is by that public key.

    It takes a thirtieth of the time of `verifier.is_signed`, which needs nothing installed.

    Raises:
        ConfigurationError: if the extra is missing.
    """
    _require_extra()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _generate() -> bytes:
    _require_extra()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(content: bytes, name: str) -> PrivateKey:
    _require_extra()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    encoded = b"".join(content.strip().removeprefix(_BEGIN).removesuffix(_END).split())
    try:
        key = load_der_private_key(base64.b64decode(encoded, validate=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{name} is not an Ed25519 private key without a password (PKCS#8 in PEM)"
        )
    return PrivateKey(key)


def _require_extra() -> None:
    if not can_sign():
        raise ConfigurationError(
            "signing needs the extra: pip install 'agent-tracking-sdk[evidence]'"
        )
    try:
        with late_imports.whole():
            import cryptography.hazmat.primitives.asymmetric.ed25519
            import cryptography.hazmat.primitives.serialization  # noqa: F401 - only tried here
    except ImportError as error:
        raise ConfigurationError(
            f"the package cryptography, which signs, cannot be imported here ({error}); "
            "install it again: pip install 'agent-tracking-sdk[evidence]'"
        ) from error
