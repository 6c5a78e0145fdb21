"""An event loop for one coroutine, whose worker threads have ended when it has."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(job: Coroutine[None, None, T]) -> T:
    """Return what a coroutine returns."""
    try:
        return asyncio.run(job)
    finally:
        for thread in threading.enumerate():
            if thread.name == "AnyIO worker thread":  # told to end with the loop
                thread.join(30)
