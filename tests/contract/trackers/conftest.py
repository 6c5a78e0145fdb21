"""What the tests of all trackers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig


@pytest.fixture
def recorded(config: MakeConfig) -> Iterator[Recorded]:
    """A conversation tracker that is open, and what it delivers."""
    opened = Recorded(config())
    with opened.tracker:
        yield opened
