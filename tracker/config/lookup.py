"""`look_up`: settings of the environment and a file by themselves, without an `APIConfig`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tracker.config.api_config import APIConfig
from tracker.config.sources import DEFAULT, Sources


def look_up(file: str | None, *names: str) -> dict[str, Any]:
    """Return what environment and configuration file say about settings; None if they say nothing.

    Args:
        file: The configuration file; if it is None, the one that the environment names, if any.
        names: Names of settings.

    Raises:
        ConfigurationError: if the file cannot be read, or is not valid.
    """
    items = dataclasses.fields(APIConfig)
    sources = Sources(items, file)
    found = {item.name: sources.find(item) for item in items if item.name in names}
    return {name: None if found[name][1].source == DEFAULT else found[name][0] for name in names}
