"""Checks of the settings for metered links."""

from __future__ import annotations

from tracker.errors import ConfigurationError
from tracker.sync.window import UploadWindow


def check_window(name: str, value: object) -> object:
    """Return an upload window as it was given; None or an empty text is always open.

    Raises:
        ConfigurationError: if it is none.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}; give a str, as in '22:00-06:00'"
        )
    UploadWindow(value or "", name)
    return value


def check_function(name: str, value: object) -> object:
    """Return a function, or None.

    Raises:
        ConfigurationError: if it is something else.
    """
    if value is not None and not callable(value):
        raise ConfigurationError(
            f"{name} is {value!r}; give a function without arguments that returns True or False"
        )
    return value
