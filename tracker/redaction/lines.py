"""`clean`: removes secrets from log lines and from the output of `status`."""

from __future__ import annotations

import re

from tracker.redaction import assigned, secrets
from tracker.redaction.names import Names
from tracker.redaction.own_keys import all_known
from tracker.redaction.rules import mask, rest_of
from tracker.redaction.uncut import Uncut

_USER_INFO = re.compile(r"(?<=://)[^\s\"'<>\\]{0,2048}@")
"""Up to the last at sign: in a malformed URL, a password may contain anything."""
_names = Names()


def clean(text: str) -> str:
    """Return `text` without the package's own keys, secrets found by rules, and users in URLs."""
    counts: dict[str, int] = {}
    masked = str.__str__(text)
    for key in all_known():
        masked = key.hide(masked, counts)
    rules = secrets.GATES.candidates(masked, masked.lower(), rest_of(masked))
    masked = mask(rules, "secret", masked, counts)
    if _names.anchors_in(masked.lower()):
        masked = assigned.hide(masked, _names, counts)
    masked = _USER_INFO.sub("[user]@", masked)
    return text.kept(masked) if type(text) is Uncut else masked
