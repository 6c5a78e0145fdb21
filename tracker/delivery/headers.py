"""Headers that somebody configures: what HTTP can carry, and masks for the keys in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tracker.errors import ConfigurationError
from tracker.redaction.own_keys import know

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-type", "content-encoding", "content-length", "host")
_SECRET = ("auth", "key", "token", "secret", "cookie")


def check_headers(setting: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as they are sent; no message shows a value, since it may be a key.

    Raises:
        ConfigurationError: if HTTP cannot carry one, or it is one that the sender itself sets.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"{setting} has a header {name!r} that HTTP cannot carry; give a name without "
                "spaces, and a value of printable ASCII characters"
            )
        if name.lower() in _OURS:
            raise ConfigurationError(f"{setting} has {name!r}, which the tracker itself sets")
    return {name: value.strip() for name, value in headers.items()}


def headers_of_pairs(setting: str, text: str) -> dict[str, str]:
    """Return the headers in ``name=value,name=value``, where any character may be %-encoded.

    Raises:
        ConfigurationError: as for `check_headers`, and if it is no such text.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(sign for _, sign, _ in pairs):
        raise ConfigurationError(f"{setting} is not name=value,name=value")
    found = {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}
    return check_headers(setting, found)


def headers_of_lines(setting: str, text: str) -> dict[str, str]:
    """Return the headers in lines of ``Name: value``, as HTTP has them.

    Raises:
        ConfigurationError: as for `check_headers`, and if it is no such text.
    """
    lines = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(sign for _, sign, _ in lines):
        raise ConfigurationError(f"{setting} has a line that is not Name: value")
    return check_headers(setting, {name.strip(): value.strip() for name, _, value in lines})


def know_headers(headers: Mapping[str, str]) -> None:
    """Have the keys in headers masked wherever a server or a library repeats them."""
    for name, value in headers.items():
        if any(word in name.lower() for word in _SECRET):
            know(value.rpartition(" ")[2])
