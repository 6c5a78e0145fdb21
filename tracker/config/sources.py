"""`Sources`: the environment and a file, from which settings come that are no arguments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.config.kinds import variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from dataclasses import Field
    from pathlib import Path

    from typing_extensions import Self

ARGUMENT = "argument"
ENVIRONMENT = "environment"
FILE = "file"
DEFAULT = "default"
_ORDER = (ARGUMENT, ENVIRONMENT, FILE, DEFAULT)


class Origin(NamedTuple):
    """Where the value of a setting comes from.

    Attributes:
        source: ``"argument"``, ``"environment"``, ``"file"`` or ``"default"``.
        name: The variable or the path of the file; empty for the others.
    """

    source: str
    name: str = ""

    @property
    def rank(self) -> int:
        """The place in the order of precedence; 0 comes first."""
        return _ORDER.index(self.source)


class Sources:
    """The environment of this process, and the configuration file if one is named.

    Args:
        items: The fields of `APIConfig` that may be looked for.
        file: The file that an argument names, or None.

    Raises:
        ConfigurationError: if the file cannot be read, or is not valid.
    """

    def __init__(self, items: Sequence[Field[Any]], file: object) -> None:
        self._path = _path_of_file(items, file)
        self._settings: Mapping[str, Any] = {}
        if self._path is not None:
            from tracker.config.toml_file import load  # only where a file is named

            self._settings = load(self._path, items)

    def find(self, item: Field[Any]) -> tuple[object, Origin]:
        """Return the value of a field that was not given as an argument, and where it is from."""
        found = _from_environment(item)
        if found is not None:
            return found
        if self._path is not None and item.name in self._settings:
            value = item.metadata["kind"].from_file(self._settings[item.name], self._path.parent)
            return value, Origin(FILE, str(self._path))
        return item.default, Origin(DEFAULT)


def strange_variables(items: Sequence[Field[Any]]) -> dict[str, str]:
    """Return variables that no setting has but one nearly has, each with that one's variable.

    Others that begin with ``SDK_`` may belong to another program.
    """
    import difflib

    known = [name for item in items if (name := variable_of(item))]
    others = [name for name in os.environ if name.startswith("SDK_") and name not in known]
    alike = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in others}
    return {name: found[0] for name, found in alike.items() if found}


def _from_environment(item: Field[Any]) -> tuple[object, Origin] | None:
    """Return the value of a field that the environment has; an empty text is none."""
    variable = variable_of(item)
    text = os.environ.get(variable) if variable else None
    if not (variable and text):
        return None
    return item.metadata["kind"].read(text), Origin(ENVIRONMENT, variable)


def _path_of_file(items: Sequence[Field[Any]], given: object) -> Path | None:
    item = next((each for each in items if each.name == "config_file"), None)
    if item is None:
        return None
    name, found = item.name, _from_environment(item)
    if given is None and found is not None:
        name, given = f"{name} ({found[1].name})", found[0]
    path: Path | None = item.metadata["kind"].check(name, given)
    return path


def opentelemetrys(variable: str) -> str:
    """Return what one of OpenTelemetry's own variables says; an empty text if it is not set."""
    return os.environ.get(variable, "")


class Sourced:
    """Base of `APIConfig`: which settings are given as arguments, and where the others are from."""

    _given: frozenset[str]
    _origins: dict[str, Origin]

    def __new__(cls, **given: object) -> Self:
        """Note which settings are given: one may be given with the very value of its default."""
        self = super().__new__(cls)
        object.__setattr__(self, "_given", frozenset(given))
        object.__setattr__(self, "_origins", {})
        return self

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Where each setting comes from. Everything in a copy counts as an argument."""
        return self._origins

    def _argument(self, item: Field[Any], *, copied: bool) -> tuple[object, Origin] | None:
        """Return the value of a field that is given; None for an optional one is not."""
        value = getattr(self, item.name)
        if item.name not in self._given:
            return None
        if value is None and item.metadata["optional"] and not copied:
            return None
        return value, Origin(ARGUMENT)

    def _name(self, setting: str) -> str:
        """Return what to call a setting in a message: with its variable or file, if they matter."""
        origin = self._origins[setting]
        if origin.source == ARGUMENT:
            return setting
        where = f"in {origin.name}" if origin.source == FILE else f"SDK_{setting.upper()}"
        return f"{setting} ({where})"
