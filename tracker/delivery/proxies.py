"""Proxy URLs, whose passwords no message may show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

_MASK = "[secret:proxy_password]"
_MALFORMED = (
    "the URL of a proxy is malformed: in its user name and password, write / ? # @ % and white "
    "space percent-encoded, as in %2F"
)
_DELIMITERS = re.compile(r"[/?#@\\\s]|%(?![0-9A-Fa-f]{2})")
_SHORTEST = 3
"""Length of the shortest password that is searched for by itself."""


def without_passwords(text: str, proxies: Iterable[str | None]) -> str:
    """Return a library's error message without the passwords of these proxies.

    Libraries show any part of a malformed URL, as if it were the host or the port: then the
    returned message only says that the URL is malformed.
    """
    for url in proxies:
        user_info, at, _ = (url or "").rpartition("@")
        if not at:
            continue
        user_info = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:/{1,2}", "", user_info, count=1)
        if _DELIMITERS.search(user_info):
            return _MALFORMED
        password = user_info.partition(":")[2]
        for secret in (user_info, unquote(user_info), password, unquote(password)):
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, _MASK)
    return text
