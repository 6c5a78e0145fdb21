"""The keys in a configuration. No message contains one, or any part of it."""

from __future__ import annotations

from tracker.errors import ConfigurationError

_CHAIN_KEY_BYTES = 16
"""Shortest chain key: a shorter one could be guessed, and HMAC is only as secure as its key."""


def check_api_key(name: str, value: object) -> str | None:
    """Return the API key without white space around it; None if there is none.

    Raises:
        ConfigurationError: if an HTTP header cannot carry it.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str")
    key = value.strip()  # secrets read from files often end in a newline
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            f"{name} has white space, control or non-ASCII characters; "
            "an HTTP header cannot carry them. Copy the key again"
        )
    return key


def check_chain_key(name: str, value: object) -> bytes | None:
    """Return a chain key as bytes; None if there is none.

    Raises:
        ConfigurationError: if it is neither text nor bytes, or too short.
    """
    if value is None:
        return None
    if not isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str or bytes")
    try:
        key = value.strip().encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} has characters that UTF-8 cannot encode") from None
    if len(key) < _CHAIN_KEY_BYTES:
        raise ConfigurationError(
            f"{name} has {len(key)} bytes; give {_CHAIN_KEY_BYTES} or more that nobody can guess, "
            "as `python3 -c 'import secrets; print(secrets.token_hex(32))'` prints them"
        )
    return key


def check_signing_key(name: str, value: object) -> str | None:
    """Return a signing key as it is; None if there is none.

    Raises:
        ConfigurationError: if it does not have the form of a private key in PEM.
    """
    if value is None:
        return None
    if not isinstance(value, str) or "-----BEGIN PRIVATE KEY-----" not in value:
        raise ConfigurationError(
            f"{name} is not a private key in PEM (PKCS#8, Ed25519); "
            "`openssl genpkey -algorithm ed25519` prints one"
        )
    return value
