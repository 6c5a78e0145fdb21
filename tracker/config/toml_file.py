"""`load`: the settings in a configuration file."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Any

from tracker.config.regular_file import read_text
from tracker.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field
    from pathlib import Path

_MOST_BYTES = 1024 * 1024


def load(path: Path, items: Sequence[Field[Any]]) -> Mapping[str, Any]:
    """Return the settings in a TOML file, by the names of their fields.

    Raises:
        ConfigurationError: if the file cannot be read, is no TOML, or has a name that no setting
            has. No message contains a value.
    """
    text = read_text(path, "configuration file", _MOST_BYTES)
    try:
        found: dict[str, Any] = tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ConfigurationError(f"{path} is not valid TOML: nested too deeply") from None
    except ValueError as error:  # without a cause: a newer tomllib keeps the whole text in it
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    in_file = [item.name for item in items if item.metadata["kind"].from_file]
    for key, value in found.items():
        _check_key(path, key, value, in_file, [item.name for item in items])
    return found


def _check_key(
    path: Path, key: str, value: object, in_file: Sequence[str], known: Sequence[str]
) -> None:
    if key not in in_file:
        raise ConfigurationError(f"{path}: {_refusal(key, value, in_file, known)}")
    for inner in value if isinstance(value, dict) else ():
        if inner in in_file:
            raise ConfigurationError(
                f"{path}: {inner} stands in the table [{key}], which reaches to the next one or to "
                "the end of the file; write it above the first table"
            )


def _refusal(key: str, value: object, in_file: Sequence[str], known: Sequence[str]) -> str:
    if key in known:
        why = "a file names no other" if key == "config_file" else "it holds functions of Python"
        return f"{key} cannot stand in a file: {why}"
    if isinstance(value, dict) and any(name in in_file for name in value):
        return f"there is no table [{key}]: settings stand at the top of the file, without a table"
    bare = key.lower().replace("-", "_").removeprefix("sdk_")
    alike = difflib.get_close_matches(bare, in_file, cutoff=0.5)
    advice = f"did you mean {' or '.join(alike)}?" if alike else "see `tracker-sync config`"
    return f"there is no setting {key!r}; {advice}"
