"""The client id that a device makes once and keeps across restarts."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from tracker import log, ownership
from tracker.errors import ConfigurationError
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "client-id"


def load_or_create(folder: Path) -> str:
    """Return the client id stored in `folder`; it is made on first use.

    Processes that start at the same moment agree on one id: the file appears complete or not at
    all, and the second process reads the id of the first.

    Raises:
        ConfigurationError: if the file can be neither read nor created.
    """
    path = folder / FILE_NAME
    try:
        ownership.create_folder(folder)
        if not path.exists():
            _create(path)
            log.warning(
                "no client id is configured: one was made and stored in %s. An outbox belongs to "
                "its client id: set SDK_CLIENT_ID now rather than when events are pending",
                path,
            )
        kept = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the client id cannot be stored in {path} ({error}); set SDK_CLIENT_ID, or point "
            "SDK_OUTBOX_PATH to a folder that this user can write to"
        ) from error
    if not kept:
        raise ConfigurationError(f"{path} is empty; delete it, or set SDK_CLIENT_ID")
    return kept


def _create(path: Path) -> None:
    # If another process is first, its id is used.
    with suppress(FileExistsError), whole_file(path, like=path) as file:
        file.write(f"{uuid.uuid4()}\n".encode())
