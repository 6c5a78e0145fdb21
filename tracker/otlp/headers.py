"""`know_headers`: masks for the keys that headers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.redaction.own_keys import know

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRET = ("auth", "key", "token", "secret", "cookie")


def know_headers(headers: Mapping[str, str]) -> None:
    """Have the keys in headers masked wherever a server or a library repeats them."""
    for name, value in headers.items():
        if any(word in name.lower() for word in _SECRET):
            know(value.rpartition(" ")[2])
