"""Configurations for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.config import APIConfig

if TYPE_CHECKING:
    from pathlib import Path


def quick(folder: Path, **changes: Any) -> APIConfig:
    """Return a configuration with an outbox in `folder` and pauses too short to notice."""
    settings: dict[str, Any] = {
        "api_key": "test-key",
        "client_id": "test-client",
        "outbox_path": folder / "outbox.sqlite3",
        "flush_interval": 0,
        "connect_timeout": 2,
        "read_timeout": 5,
        "total_timeout": 10,
        "backoff_base": 0.01,
        "backoff_cap": 0.05,
    }
    return APIConfig(**{**settings, **changes})
