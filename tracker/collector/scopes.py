"""The scopes of API keys: what each is allowed to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Scope = Literal["send", "read", "operate"]
"""``send`` stores events of the key's client, ``read`` reads them, ``operate`` reads those of all
clients and is an operator's alone."""

SCOPES: tuple[Scope, ...] = ("send", "read", "operate")
"""All scopes, in the order in which they are listed."""
_OF_CLIENT: tuple[Scope, ...] = ("send", "read")
_OF_OPERATOR: tuple[Scope, ...] = ("operate",)


def default_scopes(*, operator: bool) -> tuple[Scope, ...]:
    """Return what a key of this kind may do unless something else was said."""
    return _OF_OPERATOR if operator else _OF_CLIENT


def check_scopes(scopes: Sequence[str], *, operator: bool) -> tuple[Scope, ...]:
    """Return the scopes that a key of this kind gets, in the usual order; by default all.

    Raises:
        ValueError: if a key of this kind cannot have one of them.
    """
    allowed = default_scopes(operator=operator)
    for scope in scopes:
        if scope not in allowed:
            whose = "an operator's key" if operator else "a client's key"
            raise ValueError(f"{whose} cannot have the scope {scope}")
    return tuple(each for each in allowed if not scopes or each in scopes)


def stored_scopes(text: str | None, *, operator: bool) -> tuple[Scope, ...]:
    """Return the scopes of a stored key; none that this version does not know."""
    if text is None:
        return default_scopes(operator=operator)
    return tuple(scope for scope in SCOPES if scope in text.split())
