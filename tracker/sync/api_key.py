"""`APIKey`: the key that is sent with requests, read again when its file changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import log
from tracker.config import watched_key
from tracker.redaction.own_keys import know

if TYPE_CHECKING:
    from tracker.config import APIConfig


class APIKey:
    """The API key of a configuration. It is masked in all that is logged.

    Args:
        config: The configuration.
        api_key: A key in place of the configured one.
    """

    def __init__(self, config: APIConfig, api_key: str | None = None) -> None:
        self._config = config
        self._key = config.api_key if api_key is None else api_key
        self._file = watched_key(config) if api_key is None else None
        know(self._key, config.chain_key)

    def current(self) -> str:
        """Return the key to send now."""
        if self._file is not None and self._file.changed():
            self._key = self._file.current()
            know(self._key, self._config.chain_key)  # so that it is masked, as the first is
            log.info("a new API key was read from %s", self._config.api_key_file)
        return self._key

    def look_again(self) -> None:
        """Have the file read again, if there is one: the server refused the key."""
        if self._file is not None:
            self._file.look_again()
