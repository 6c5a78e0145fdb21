"""Whom a span or log record concerns, and where it comes from, as its attributes say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.errors import ValidationError
from tracker.otel import names

if TYPE_CHECKING:
    from collections.abc import Mapping


def ids(data: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Return session, agent and user that the ``attributes`` of an event's data name."""
    attributes = data.get("attributes")
    if not attributes:
        return None, None, None
    return (
        _first(attributes, names.SESSION),
        _first(attributes, names.AGENT),
        _first(attributes, names.USER),
    )


def origin(data: Mapping[str, Any]) -> dict[str, str]:
    """Return ``environment`` and ``release`` for the context of an event, as its resource has them.

    What is missing there, or no text of 1 to 256 characters, is left out.
    """
    attributes = data.get("resource", {}).get("attributes", {})
    found = {
        "environment": _first(attributes, names.ENVIRONMENT),
        "release": _first(attributes, names.RELEASE),
    }
    return {name: value for name, value in found.items() if value is not None}


def _first(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        if key in attributes:
            try:
                return validation.check_id(key, attributes[key])
            except ValidationError:  # another type, empty, or too long
                continue
    return None
