"""The user's data folder of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = "agent-tracking-sdk"


def default_folder() -> Path:
    """Return the user's data folder for outboxes, following the platform's conventions.

    Raises:
        ConfigurationError: if this user has none: no HOME, and no entry in the user database.
    """
    import platformdirs  # only where no path is given

    try:
        # Older versions of platformdirs return the ~ unchanged if there is no home.
        folder = platformdirs.user_data_path(APPLICATION, appauthor=False).expanduser()
    except (RuntimeError, KeyError) as error:
        raise ConfigurationError(
            f"this user has no home folder to keep the outbox in: {error}. Set SDK_OUTBOX_PATH "
            "(outbox_path) to a file in a folder that this user can write to, or set HOME"
        ) from None
    if not folder.is_absolute():
        raise ConfigurationError(
            f"the user's data folder {folder} is not an absolute path; set SDK_OUTBOX_PATH "
            "(outbox_path), or correct HOME and XDG_DATA_HOME"
        )
    return folder
