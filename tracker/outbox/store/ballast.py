"""The ballast: a file that only takes up room, to be given up when the disk is full.

On a full disk SQLite can neither mark events as delivered nor delete any, for its log must grow
first. The ballast's room is for that, and new events stay out of it: they wait in memory until
there is room enough to lay it again.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tracker import log, ownership
from tracker.clock import monotonic
from tracker.outbox.files import paths

if TYPE_CHECKING:
    from pathlib import Path

BALLAST_BYTES = 1024 * 1024
"""Enough log for the receipt of a whole batch of usual events, or for a chunk of pruning."""

_SAY_AGAIN_SECONDS = 60.0
"""A disk that is full now and then must not fill the log."""


class Ballast:
    """Owns the file ``<outbox>.ballast``, which all processes on the outbox share.

    Attributes:
        spent: Whether this process has given it up and could not lay it again since.
    """

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self.path = paths.ballast(outbox)
        self.spent = False
        self._said = False
        self._say_at = 0.0

    def lay(self) -> bool:
        """Make the file, if it is not there and the disk has room for it twice; tell if it is."""
        if self.path.exists():
            self.spent = False
            return True
        try:
            if shutil.disk_usage(self.path.parent).free < 2 * BALLAST_BYTES:
                return False
            self._write()
        except OSError as error:
            self.path.unlink(missing_ok=True)
            log.info("no ballast could be laid at %s: %s", self.path, error)
            return False
        if self.spent and self._said:
            log.warning("the disk has room again; events are written to the outbox as before")
        self.spent = self._said = False
        return True

    def _write(self) -> None:
        descriptor = ownership.create(self.path, like=self._outbox)
        try:
            # Random, lest a file system that compresses or skips zeros keeps no room at all.
            os.write(descriptor, os.urandom(BALLAST_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free(self) -> bool:
        """Give the room up; tell whether there was any."""
        try:
            self.path.unlink()
        except OSError:  # not there, or the file system lets nobody change anything
            return False
        self.spent = True
        now = monotonic()
        if now >= self._say_at:
            self._said, self._say_at = True, now + _SAY_AGAIN_SECONDS
            log.error(
                "the disk is full: the ballast of the outbox was given up, so that uploading and "
                "pruning go on; new events wait in memory until there is room"
            )
        return True
