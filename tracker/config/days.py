"""How long delivered events of certain types stay: days by type, or a preset."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tracker.config.kinds import check_number, read_mapping, read_number
from tracker.errors import ConfigurationError

MOST = 36_500.0
PRESETS = {"eu_ai_act": 190.0}
"""Least days for every type by the names of presets. The longest six months have 184 days."""
USUAL = {"compliance.*": 3_650.0}
_TYPE_OR_PREFIX = re.compile(r"[\w-]+(\.[\w-]+)*(\.\*)?")


def read(text: str) -> object:
    """Return days by type that ``type=days,type=days`` stands for, or the text."""
    found = read_mapping(text)
    if not isinstance(found, Mapping):
        return text.strip()
    return {pattern: read_number(days) for pattern, days in found.items()}


def check(name: str, value: object) -> str | dict[str, float] | None:
    """Return days by type, or the name of a preset; None if not given.

    Raises:
        ConfigurationError: if it is none of these.
    """
    if value is None or (isinstance(value, str) and value in PRESETS):
        return value
    if isinstance(value, str):
        raise ConfigurationError(
            f"{name} is {value!r}; give 'eu_ai_act' or days by event type, as in "
            "{'message.logged': 30}, or in the environment message.logged=30,security.*=365"
        )
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}; give days by event type, as in "
            "{'message.logged': 30, 'compliance.*': 3650}, or 'eu_ai_act'"
        )
    for pattern in value:
        if not isinstance(pattern, str) or not _TYPE_OR_PREFIX.fullmatch(pattern):
            raise ConfigurationError(
                f"{name} names {pattern!r}; give an event type, or a prefix that ends in '.*', "
                "as in 'compliance.*'. For all other types there is retention_days"
            )
    return {
        pattern: check_number(f"{name}[{pattern!r}]", days, 0.0, MOST)
        for pattern, days in value.items()
    }
