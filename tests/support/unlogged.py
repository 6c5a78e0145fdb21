"""A test as in an application without any logging: pytest brings handlers of its own."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracker import log

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger("tracker")


@contextmanager
def unlogged() -> Iterator[None]:
    """Leave the logger ``tracker`` with nothing but what the package gives it, in the block.

    In the test itself, not in a fixture: pytest puts its handlers there after those.
    """
    before = LOGGER.handlers, LOGGER.propagate, LOGGER.level
    LOGGER.handlers, LOGGER.propagate = [log.NOWHERE], False
    try:
        yield
    finally:
        LOGGER.handlers, LOGGER.propagate = before[:2]
        LOGGER.setLevel(before[2])
