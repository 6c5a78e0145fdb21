"""The fault suite's two sizes: short by default, in full with ``--full``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.figures import say

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in full."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def only_in_full(full: bool) -> None:
    """Skip a test in the short form; to be asked for before what it would set up in vain."""
    if not full:
        pytest.skip("with --full")


@pytest.fixture
def tell(full: bool, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line of figures, in a full run."""
    return lambda text: say(capsys, text) if full else None
