"""`read_text`: what a small file of the operator's holds, in one line of trouble if it cannot."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def read_text(path: Path, name: str, most: int) -> str:
    """Return the text of a file in UTF-8.

    Args:
        path: The file.
        name: What to call it in a message.
        most: Maximum size in bytes.

    Raises:
        ConfigurationError: if there is none, or if it is something else: a folder, a pipe, which
            could be read only once, a device, a file of more than `most` bytes, or of other bytes
            than UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"the {name} {path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(most + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigurationError(f"the {name} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the {name} {path} is not UTF-8 text") from None
    if len(content) > most:
        raise ConfigurationError(f"the {name} {path} has more than {most:,} bytes")
    return text
