"""`APIConfig` and its sources. Only the modules of this package read environment variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.addresses import is_loopback
from tracker.config.api_config import APIConfig
from tracker.config.keys import check_chain_key

if TYPE_CHECKING:
    from tracker.config.key_file import KeyFile

__all__ = ["APIConfig", "check_chain_key", "is_loopback", "watched_key"]


def watched_key(config: APIConfig) -> KeyFile | None:
    """Return the file of the API key, to be asked for a newer one; None if there is none."""
    if config.api_key_file is None:
        return None
    from tracker.config.key_file import KeyFile  # seldom needed

    return KeyFile(config.api_key_file, config.api_key)
