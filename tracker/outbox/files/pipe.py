"""`Pipe`: a named pipe beside an outbox, for short messages between the processes that use it."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import TYPE_CHECKING

from tracker import log, ownership
from tracker.outbox.files.lock_wait import LockFile

if TYPE_CHECKING:
    from pathlib import Path

_CAPACITY = 1 << 20
"""More bytes than are ever in the pipe (Linux, pipe-max-size), so that one read takes them all."""

SUFFICES = select.PIPE_BUF >= 4096
"""Whether a pipe takes a usual event in one piece, as on Linux; on macOS it takes 512 bytes."""


class Pipe:
    """Messages, each a line, for the first that reads them. They may be lost at any time.

    What is in it is in the kernel's memory alone, and gone with the last process that has it open.
    It never blocks. Where it cannot be made or opened, sending fails and nothing arrives.

    Owns one open file, opened when the first message is sent. A forked child must call `forget`.

    Args:
        path: Where the pipe is, or will be made.
        like: The file whose owner and mode a new one gets.
    """

    def __init__(self, path: Path, like: Path) -> None:
        self._path = path
        self._path_text = str(path)
        self._like = like
        self._file: LockFile | None = None
        self._said = False

    def send(self, line: bytes) -> bool:
        """Send a line without its end; return False if it is too long, or cannot be sent now."""
        if len(line) >= select.PIPE_BUF:  # the kernel would not keep it in one piece
            return False
        try:
            if self._file is None or self._is_replaced():
                self._open()
            file = self._file
            return file is not None and file.write(line + b"\n") is not None
        except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile
            if not self._said:
                self._said = True
                log.info("waiting processes cannot hand over events by %s: %s", self._path, error)
            return False

    def take(self) -> list[bytes]:
        """Take all the lines that are in it now."""
        file = self._file
        if file is None:
            return []
        try:
            if file.is_lost():
                self.forget()
                return []
            return (file.read(_CAPACITY) or b"").splitlines()
        except (OSError, ValueError):
            return []

    def close(self) -> None:
        """Close it, and remove it: who has it open goes on using it, and others make a new one."""
        if self._file is not None and not self._is_replaced():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file, which a forked child has inherited, and leave the pipe to the others."""
        file, self._file = self._file, None
        if file is not None:
            if file.is_lost():
                file.let_go()
            else:
                file.discard()

    def _is_replaced(self) -> bool:
        file = self._file
        if file is None or file.is_lost():
            return True
        try:
            found = os.stat(self._path_text, follow_symlinks=False)  # noqa: PTH116 - half the time
        except OSError:
            return True
        return found[1:3] != file.mark[:2]

    def _open(self) -> None:
        self.forget()
        file = LockFile(ownership.open_or_create_pipe(self._path, self._like))
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            self._file = file
        else:
            file.discard()
