"""The fault suite's two sizes: short by default, in full with ``--full``."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in full."""
    return bool(request.config.getoption("--full"))
