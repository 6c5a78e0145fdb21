"""`KeyFile`: an API key in a file that may be replaced while the application runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tracker import log
from tracker.config.keys import check_api_key
from tracker.config.regular_file import read_text
from tracker.errors import ConfigurationError
from tracker.once import Once

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 16 * 1024


class KeyFile:
    """The key in a file, read again when the file changes.

    Args:
        path: The file.
        key: The key that was read before, to be used until the file holds another.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self._path = path
        self._key = key
        self._seen: tuple[int, ...] | None = None
        self._logged = Once(most=1)

    def read(self) -> str:
        """Return the key that the file holds now.

        Raises:
            ConfigurationError: if it cannot be read, or holds none. The message never contains it.
        """
        name = f"the key in the file {self._path} (api_key_file, SDK_API_KEY_FILE)"
        text = read_text(self._path, "API key file (api_key_file, SDK_API_KEY_FILE)", _MOST_BYTES)
        key = check_api_key(name, text.strip().removeprefix("\ufeff"))
        if key is None:
            raise ConfigurationError(f"the API key file {self._path} is empty")
        return key

    def current(self) -> str:
        """Return the key; the last one while the file is missing, empty or no key."""
        seen = self._state()
        if seen is not None and seen != self._seen:
            try:
                self._key = self.read()
            except ConfigurationError as error:
                if self._logged.is_new(str(error)):
                    log.warning("%s; the last key is used", error)
            else:
                self._logged.forget()
                self._seen = seen
        return self._key

    def changed(self) -> bool:
        """Return True if the file holds another key than at the last call of any method."""
        before = self._key
        return self.current() != before

    def look_again(self) -> None:
        """Have the file read at the next call though it seems unchanged: its key was refused."""
        self._seen = None

    def _state(self) -> tuple[int, ...] | None:
        """Return what changes when the file does; None if it cannot be seen."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a link is followed, and nothing else done
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
