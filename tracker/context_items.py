"""Items of the context of events: what holds for every event of a process or block.

It belongs to the part of an event that its digest always covers and that stays after an erasure, so
that it can be said later where an erased event came from. Hence nothing about a person may be in
it: keys such as ``user`` or ``email`` are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tracker import canonical, validation
from tracker.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_BYTES = 4_096
"""Maximum size of a context as JSON: it is stored with each event."""
PERSONAL = frozenset({
    "address", "birthdate", "birthday", "customername", "dateofbirth", "displayname", "email",
    "emailaddress", "emails", "enduser", "enduserid", "familyname", "firstname", "fullname",
    "givenname", "lastname", "login", "mail", "middlename", "mobile", "mobilenumber", "mobilephone",
    "name", "names", "nationalid", "passportnumber", "patient", "person", "phone", "phonenumber",
    "socialsecurity", "ssn", "surname", "telephone", "useremail", "userid", "userids", "username",
    "user", "users", "userphone",
})  # fmt: skip
"""Keys that are refused anywhere in a context, in lower case and without ``_`` and ``-``."""

SAYING_LITTLE = frozenset({
    "address", "displayname", "login", "mail", "mobile", "name", "names", "patient", "person",
    "user", "username", "users",
})  # fmt: skip
"""Those of them that say nothing about a person behind other words, as in ``host_name``."""

_WORDS = re.compile(r"[A-Z]?[^\W_A-Z]+|[A-Z]+(?![^\W_A-Z])")


def check(argument: str, items: object) -> dict[str, Any]:
    """Return a checked copy of context items.

    ``environment`` and ``release`` are text of 1 to 256 characters, ``tags`` maps such text to such
    text, and any other item is what JSON can represent. None takes an item of the enclosing block
    or of the configuration away.

    Raises:
        ValidationError: if an item is not allowed, or they are too large together.
    """
    kept = validation.copy_metadata(argument, items)
    for name in ("environment", "release"):
        if kept.get(name) is not None:
            validation.check_id(name, kept[name])
    if kept.get("tags") is not None:
        kept["tags"] = check_tags(kept["tags"])
    _refuse_personal(argument, kept)
    if (size := len(canonical.encode(kept).encode())) > MAX_BYTES:
        raise ValidationError(
            argument,
            f"has {size:,} bytes as JSON; give at most {MAX_BYTES:,}, since it is stored with each "
            "event. What concerns one event belongs into its metadata",
        )
    return kept


def check_tags(value: object) -> dict[str, str]:
    """Return a checked copy of tags.

    Raises:
        ValidationError: if they do not map text to text.
    """
    tags = validation.copy_metadata("tags", value)
    for name, text in tags.items():
        validation.check_id("a name in tags", name)
        validation.check_id(f"tags[{name!r}]", text)
    return tags


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return `outer` with the items of `inner` in place of its own, tags one by one."""
    both = {**outer, **inner}
    if outer.get("tags") and inner.get("tags"):
        both["tags"] = {**outer["tags"], **inner["tags"]}
    return both


def _refuse_personal(argument: str, value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if _is_personal(key):
                raise ValidationError(
                    argument,
                    f"has the key {key!r}: context stays when a person's data is erased, so "
                    "nothing about a person may be in it. Log it with user_id= or metadata=",
                )
            _refuse_personal(argument, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_personal(argument, item)


def _is_personal(key: str) -> bool:
    """Return True if a key, or what it ends in, is one about a person: ``customerEmail``."""
    words = [word.lower() for word in _WORDS.findall(key)]
    ends = {"".join(words[start:]) for start in range(1, len(words))}
    return "".join(words) in PERSONAL or not ends.isdisjoint(PERSONAL - SAYING_LITTLE)
