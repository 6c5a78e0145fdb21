"""Whom a span or log record concerns: session, agent and user, as its attributes name them."""

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


def _first(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        if key in attributes:
            try:
                return validation.check_id(key, attributes[key])
            except ValidationError:  # another type, empty, or too long
                continue
    return None
