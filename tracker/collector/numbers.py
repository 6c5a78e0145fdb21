"""Parsing of JSON with invalid numbers, so that only the events that contain them are refused."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any


class NoNumber:
    """Replaces NaN, Infinity, and an integer too long for Python."""


def parse(text: str) -> tuple[Any, bool]:
    """Return the value of JSON text, and whether it contains a `NoNumber`.

    Raises:
        JSONDecodeError: if it is not JSON for another reason.
        RecursionError: if it is nested too deeply.
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
    except ValueError:  # an integer is too long; a hook for every integer would be slow
        value = json.loads(text, parse_constant=no_number, parse_int=integer)
    return value, bool(found)


def holds_none(value: object) -> bool:
    """Return True if a parsed value contains a `NoNumber`."""
    if isinstance(value, dict):
        return any(map(holds_none, value.values()))
    if isinstance(value, list):
        return any(map(holds_none, value))
    return isinstance(value, NoNumber)
