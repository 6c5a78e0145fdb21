"""The ballast: a file that only takes up room, and is deleted when the disk is full.

On a full disk SQLite can neither mark events as delivered nor delete any, because its log has to
grow first. The ballast's room is for that, and new events are kept out of it: they stay in memory
until there is enough room to create it again.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tracker import log, ownership
from tracker.once import Once
from tracker.outbox.files import paths

if TYPE_CHECKING:
    from pathlib import Path

BALLAST_BYTES = 1024 * 1024
"""Enough log for the receipt of a whole batch of ordinary events, or for one chunk of pruning."""

_SAY_AGAIN_SECONDS = 60.0
"""How long not to repeat the message: a disk that is often full must not fill the log."""


class Ballast:
    """Owns the file ``<outbox>.ballast``, which all processes on the outbox share.

    Attributes:
        spent: Whether this process has deleted it and could not create it again since.
    """

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self.path = paths.ballast(outbox)
        self.spent = False
        self._said = False
        self._logged = Once(seconds=_SAY_AGAIN_SECONDS)

    def create(self) -> bool:
        """Create the file if the disk has room for it twice; return True if it exists now."""
        if self.path.exists():
            self.spent = False
            return True
        try:
            if shutil.disk_usage(self.path.parent).free < 2 * BALLAST_BYTES:
                return False
            self._write()
        except OSError as error:
            self.path.unlink(missing_ok=True)
            log.info("the ballast %s could not be created: %s", self.path, error)
            return False
        if self.spent and self._said:
            log.warning("the disk has room again; events are written to the outbox as before")
        self.spent = self._said = False
        return True

    def _write(self) -> None:
        descriptor = ownership.create(self.path, like=self._outbox)
        try:
            # Random, or a file system that compresses or skips zeros would reserve no room at all.
            os.write(descriptor, os.urandom(BALLAST_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> bool:
        """Delete the file to make room; return True if it existed."""
        try:
            self.path.unlink()
        except OSError:  # it does not exist, or the file system cannot be changed
            return False
        self.spent = True
        if self._logged.is_new():
            self._said = True
            log.error(
                "the disk is full: the outbox gave up its ballast, so that uploading and pruning "
                "can go on; new events are not stored until there is room"
            )
        return True
