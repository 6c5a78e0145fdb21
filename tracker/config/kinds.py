"""`Kind`: how the value of a setting is read from text or from a file, and checked.

A field of `APIConfig` is `setting(default, kind)`. Its variable, its line in a file and its row in
`tracker-sync config` follow from that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_FALSE = ("", "0", "false", "no", "off")
_TRUE = ("1", "true", "yes", "on")


def unchanged(value: Any, *_: object) -> Any:
    """Return the value as it is."""
    return value


def _accepted(_name: str, value: Any) -> Any:
    return value


class Kind(NamedTuple):
    """How a setting is read and checked.

    Attributes:
        check: Returns the value to use, given the name to call the setting by and a value. Raises
            `ConfigurationError`.
        read: Returns the value that a text of the environment stands for, or the text itself if it
            stands for none, so that `check` refuses it. None if no text can stand for a value: the
            setting then has neither a variable nor a line in a file.
        from_file: Returns the value for `check`, given one of TOML and the folder of the file.
            None if the setting has no line in a file.
    """

    check: Callable[[str, Any], Any] = _accepted
    read: Callable[[str], object] | None = unchanged
    from_file: Callable[[Any, Path], object] | None = unchanged


def setting(
    default: object,
    kind: Kind,
    *,
    optional: bool = False,
    secret: bool = False,
    hash: bool | None = None,
    compare: bool = True,
) -> Any:
    """Return a field of `APIConfig`.

    Args:
        default: The value if no source has one.
        kind: How the value is read and checked.
        optional: Whether an argument of None counts as not given; it does if `default` is None.
        secret: Whether neither a `repr` nor a command may show the value.
        hash: False for values that have none; see `dataclasses.field`.
        compare: False for what makes no difference; see `dataclasses.field`.
    """
    metadata = {"kind": kind, "optional": optional or default is None, "secret": secret}
    return dataclasses.field(
        default=default, repr=not secret, hash=hash, compare=compare, metadata=metadata
    )


def variable_of(item: dataclasses.Field[Any]) -> str | None:
    """Return the name of a field's environment variable, or None if it has none."""
    return "SDK_" + item.name.upper() if item.metadata["kind"].read else None


def flag() -> Kind:
    """Return the kind of a setting that is on or off."""

    def read(text: str) -> object:
        word = text.strip().lower()
        return word in _TRUE if word in _TRUE + _FALSE else text

    def check(name: str, value: object) -> bool:
        found = value if isinstance(value, bool) else read(str(value))
        if not isinstance(found, bool):
            raise ConfigurationError(f"{name} is {value!r}; give 1 or 0 (true/false)")
        return found

    return Kind(check, read)


def choice(*allowed: str) -> Kind:
    """Return the kind of a setting that is one of some words."""

    def check(name: str, value: object) -> object:
        if value not in allowed:
            raise ConfigurationError(
                f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}"
            )
        return value

    return Kind(check)


def integer(low: int, high: int, *, optional: bool = False) -> Kind:
    """Return the kind of a whole number within bounds, or of None too if it is `optional`."""

    def check(name: str, value: object) -> object:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(f"{name} is {value!r}; give an int from {low:,} to {high:,}")
        return value

    return Kind(check, read_integer)


def number(low: float, high: float) -> Kind:
    """Return the kind of a number within bounds."""
    return Kind(lambda name, value: check_number(name, value, low, high), read_number)


def check_number(name: str, value: object, low: float, high: float) -> float:
    """Return a number as a float.

    Raises:
        ConfigurationError: if it is none, or out of bounds.
    """
    fits = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and low <= value <= high
        and math.isfinite(value)
    )
    if not fits:
        raise ConfigurationError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]  # `fits` has just shown that it is a number


def _number_reader(convert: Callable[[str], object]) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return convert(text)
        except ValueError:
            return text

    return read


read_integer = _number_reader(int)
"""Returns the int that a text stands for, or the text."""
read_number = _number_reader(float)
"""Returns the number that a text stands for, or the text."""


def read_list(text: str) -> object:
    """Return what stands between commas; what is empty is left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_mapping(text: str) -> object:
    """Return the mapping that ``k=v,k=v`` stands for, or the text if it stands for none."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {key.strip(): value.strip() for key, _, value in pairs}
    whole = all(equals and key.strip() for key, equals, _ in pairs) and len(found) == len(pairs)
    return found if whole else text


def names(*examples: str) -> Kind:
    """Return the kind of a list of names, each with a letter or a digit, such as these."""

    def check(name: str, value: object) -> tuple[str, ...]:
        fits = isinstance(value, (list, tuple, set, frozenset)) and all(
            isinstance(each, str) and any(map(str.isalnum, each)) for each in value
        )
        if not fits:
            raise ConfigurationError(
                f"{name} must be a list of names with letters or digits, as in {list(examples)}, "
                f"or in the environment {','.join(examples)}"
            )
        return tuple(value)  # type: ignore[arg-type]  # `fits` has just shown that it is a list

    return Kind(check, read_list)


def functions() -> Kind:
    """Return the kind of a list of functions, which no text can stand for."""

    def check(name: str, value: object) -> tuple[object, ...]:
        if not isinstance(value, Sequence) or not all(callable(item) for item in value):
            raise ConfigurationError(
                f"{name} must be a list of functions from str to str, as in {name}=[hide_names]"
            )
        return tuple(value)

    return Kind(check, None, None)


def function() -> Kind:
    """Return the kind of a function or None, which no text can stand for."""

    def check(name: str, value: object) -> object:
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name} is of type {type(value).__name__}; give a function")
        return value

    return Kind(check, None, None)


def flattened(value: object, _folder: Path) -> object:
    """Return a table of TOML as one mapping with dotted keys: TOML nests what ``a.b = 1`` says."""
    if not isinstance(value, Mapping):
        return value
    found: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            deeper: Any = flattened(inner, _folder)
            found |= {f"{key}.{rest}": each for rest, each in deeper.items()}
        else:
            found[key] = inner
    return found
