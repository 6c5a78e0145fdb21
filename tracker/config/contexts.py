"""The settings that are in the context of every event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import context_items, validation
from tracker.config import kinds
from tracker.config.kinds import Kind
from tracker.errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable


def word() -> Kind:
    """Return the kind of a text of 1 to 256 characters, or None."""
    return Kind(lambda name, value: None if value is None else _checked(_word, name, value))


def tags() -> Kind:
    """Return the kind of a mapping of text to text."""
    return Kind(lambda name, value: _checked(_tags, name, value or {}), kinds.read_mapping)


def items() -> Kind:
    """Return the kind of a mapping of text to anything that JSON can represent."""
    return Kind(
        lambda name, value: _checked(context_items.check, name, value or {}), kinds.read_mapping
    )


def check_together(context: dict[str, Any]) -> None:
    """Check what the settings make together.

    Raises:
        ConfigurationError: if they are too large.
    """
    _checked(context_items.check, "environment, release, tags and context", context)


def _word(name: str, value: object) -> str:
    return validation.check_id(name, value)


def _tags(name: str, value: object) -> dict[str, str]:
    return dict(context_items.check(name, {"tags": value})["tags"])


def _checked(check: Callable[[str, Any], Any], name: str, value: object) -> Any:
    if isinstance(value, str) and check is not _word:
        raise ConfigurationError(
            f"{name} is {value!r:.200}; give a dict, as in {{'site': 'oslo'}}, or in the "
            "environment site=oslo,line=4 with each name once"
        )
    try:
        return check(name, value)
    except ValidationError as error:
        said = str(error)
        # An error about a part names the part; where the whole comes from is worth knowing too.
        raise ConfigurationError(said if said.startswith(name) else f"{name}: {said}") from None
