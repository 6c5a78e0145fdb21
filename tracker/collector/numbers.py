"""Parsing of JSON with invalid numbers, so that only the events that contain them are refused."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any


class BadNumber:
    """Replaces NaN, Infinity, and an integer too long for Python."""


def parse(text: str) -> tuple[Any, bool]:
    """Return the value of JSON text, and whether it contains a `BadNumber`.

    Raises:
        JSONDecodeError: if it is not JSON for another reason.
        RecursionError: if it is nested too deeply.
    """
    found: list[BadNumber] = []

    def bad_number(_: str) -> BadNumber:
        found.append(BadNumber())
        return found[-1]

    def integer(digits: str) -> int | BadNumber:
        try:
            return int(digits)
        except ValueError:
            return bad_number(digits)

    try:
        value = json.loads(text, parse_constant=bad_number)
    except JSONDecodeError:
        raise
    except ValueError:  # an integer is too long; a hook for every integer would be slow
        value = json.loads(text, parse_constant=bad_number, parse_int=integer)
    return value, bool(found)


def contains_bad_number(value: object) -> bool:
    """Return True if a parsed value contains a `BadNumber`."""
    if isinstance(value, dict):
        return any(map(contains_bad_number, value.values()))
    if isinstance(value, list):
        return any(map(contains_bad_number, value))
    return isinstance(value, BadNumber)
