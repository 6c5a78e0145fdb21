"""A file that a command writes: whole or not there at all, and nobody else's to read."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import click

from tracker import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Lend a file to write; it appears at `path` when the block is left in order.

    Its mode is 0600; where it takes the place of another, it has that one's owner and mode. Until
    then, and if an exception escapes, what was at `path` stays as it was. It is owned by this
    function: opened, flushed to the disk and closed here.

    Args:
        path: Where it is to be.
        force: Whether it may take the place of another.

    Raises:
        ClickException: if there is one already and `force` is False; exit code 1.
    """
    if not force and os.path.lexists(path):
        raise _exists(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        descriptor = ownership.create(draft, like=path if path.exists() else None)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(draft, path, force=force)
    finally:
        draft.unlink(missing_ok=True)


def _move(draft: Path, path: Path, *, force: bool) -> None:
    if force:
        draft.replace(path)
        return
    try:
        os.link(draft, path)  # unlike a rename, this never replaces what came there meanwhile
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # FAT and some network file systems have no hard links
        draft.rename(path)


def _exists(path: Path) -> click.ClickException:
    return click.ClickException(f"{path} exists; give another name, or --force to replace it")
