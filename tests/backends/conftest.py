"""What the tests of receivers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker import APIConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def client(tmp_path: Path) -> dict[str, str]:
    """The settings of a client, without those of a receiver."""
    return {
        "SDK_CLIENT_ID": "kiosk-17",
        "SDK_OUTBOX_PATH": str(tmp_path / "outbox.sqlite3"),
        "SDK_BATCH_MAX_EVENTS": "100",
    }


def configured(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> APIConfig:
    """Return the configuration of these settings, in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return APIConfig()
