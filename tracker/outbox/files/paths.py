"""Where the files of an outbox are: its log, its locks, and what else lies beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def log_bytes(path: Path) -> int:
    """Return the size of the log of `path`, 0 if there is none."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0
