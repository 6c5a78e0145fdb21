"""The addresses in a configuration: the collector's URL and proxies."""

from __future__ import annotations

from collections.abc import Mapping

from tracker.addresses import check_url, is_unsafe
from tracker.config.otlp import PREFIX
from tracker.errors import ConfigurationError


def check_base_url(name: str, value: object) -> str:
    """Return the URL of a collector without a trailing slash.

    A URL that begins with ``otlp+`` is that of an OTLP receiver; see `APIConfig.protocol`.

    Raises:
        ConfigurationError: if it is none, or has credentials, a query or a fragment.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a str")
    prefix = PREFIX if value.strip().startswith(PREFIX) else ""
    url = value.strip().removeprefix(prefix)
    return prefix + check_url(name, url, "give the key as api_key")


def check_safe(name: str, url: str) -> None:
    """Refuse plain http to another host; the URL is one that `check_base_url` has returned.

    Raises:
        ConfigurationError: if the API key would be sent unencrypted.
    """
    if is_unsafe(url):
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
