"""The addresses of servers: what is one, and which are this machine itself."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tracker.errors import ConfigurationError


def check_url(name: str, value: str, remedy: str) -> str:
    """Return the URL of a server without a trailing slash.

    Args:
        name: What the URL is called in messages.
        value: The URL.
        remedy: Where credentials are to be given instead, as part of a sentence.

    Raises:
        ConfigurationError: if it is none, or has credentials, a query or a fragment.
    """
    # Checked before the URL is parsed: the error for a malformed one may show any part of it.
    if "@" in value:  # user:secret@host
        raise ConfigurationError(
            f"{name} contains credentials (an @); {remedy} instead, and write an @ in a path as %40"
        )
    value = value.strip()
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a URL: {error}") from None
    value, query, _ = re.sub("[?#]", "?", value).partition("?")  # a query may hold a key
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"{name} is {value!r} with the scheme {parts.scheme!r}; "
            "give https://host or http://localhost:port"
        )
    whole = value.isascii() and value.strip().isprintable() and " " not in value.strip()
    if not host or query or not whole:
        raise ConfigurationError(
            f"{name} is {value!r}; give scheme, host, optional port and path prefix in ASCII, "
            "without spaces, query or fragment"
        )
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port is None else f":{port}"
    return f"{parts.scheme}://{shown_host}{shown_port}{parts.path.rstrip('/')}"


def is_unsafe(url: str) -> bool:
    """Return True if a key sent to such a URL would cross a network unencrypted."""
    return url.startswith("http:") and not is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Return True if `host` is this machine's loopback interface."""
    if host in ("localhost", "127.0.0.1"):
        return True
    import ipaddress  # seldom needed, and slow to load

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
