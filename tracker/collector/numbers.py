"""JSON with numbers that no event may hold: read all the same, so that one event is refused."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any


class NoNumber:
    """What stands in the place of NaN, of Infinity, and of an integer too long for Python."""


def parse(text: str) -> tuple[Any, bool]:
    """Return the value of JSON text, and whether a `NoNumber` is in it.

    Raises:
        JSONDecodeError: it is no JSON for another reason.
        RecursionError: it is nested too deeply.
    """
    found: list[NoNumber] = []

    def no_number(_: str) -> NoNumber:
        found.append(NoNumber())
        return found[-1]

    def integer(digits: str) -> int | NoNumber:
        try:
            return int(digits)
        except ValueError:
            return no_number(digits)

    try:
        value = json.loads(text, parse_constant=no_number)
    except JSONDecodeError:
        raise
    except ValueError:  # an integer too long; a hook that sees every one takes time
        value = json.loads(text, parse_constant=no_number, parse_int=integer)
    return value, bool(found)


def holds_none(value: object) -> bool:
    """Return True if a `NoNumber` is in a value that was parsed."""
    if isinstance(value, dict):
        return any(map(holds_none, value.values()))
    if isinstance(value, list):
        return any(map(holds_none, value))
    return isinstance(value, NoNumber)
