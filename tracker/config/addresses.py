"""The addresses in a configuration: the collector's URL and proxies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from tracker.config.otlp import PREFIX
from tracker.errors import ConfigurationError
from tracker.loopback import is_loopback


def check_base_url(name: str, value: object) -> str:
    """Return the URL of a collector without a trailing slash.

    A URL that begins with ``otlp+`` is that of an OTLP receiver; see `APIConfig.protocol`.

    Raises:
        ConfigurationError: if it is none, or has credentials, a query or a fragment.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str")
    # Checked before the URL is parsed: the error for a malformed one may show any part of it.
    if "@" in value:  # user:secret@host
        raise ConfigurationError(
            f"{name} contains credentials (an @); give the key as api_key instead, and write an @ "
            "in a path as %40"
        )
    prefix = PREFIX if value.strip().startswith(PREFIX) else ""
    value = value.strip().removeprefix(prefix)
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
    return f"{prefix}{parts.scheme}://{shown_host}{shown_port}{parts.path.rstrip('/')}"


def check_safe(name: str, url: str) -> None:
    """Refuse plain http to another host; the URL is one that `check_base_url` has returned.

    Raises:
        ConfigurationError: if the API key would be sent unencrypted.
    """
    if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        raise ConfigurationError(
            f"{name} is {url!r}: plain http would send the API key unencrypted to another host. "
            "Use https://, or set allow_insecure_http=True (SDK_ALLOW_INSECURE_HTTP=1) if the "
            "network is trusted"
        )


def check_proxies(name: str, value: object) -> dict[str, str] | None:
    """Return proxies by scheme; no message shows them, since their URLs may have passwords.

    Raises:
        ConfigurationError: if it is no mapping of texts.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise ConfigurationError(
            f"{name} must map schemes to proxy URLs, as in {{'https': 'http://proxy:3128'}}, or in "
            "the environment https=http://proxy:3128"
        )
    return dict(value)
