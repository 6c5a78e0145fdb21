"""Calls that have not returned, and the threads of the operating system that run them."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def _own_get_ident() -> Callable[[], int]:
    """Return the function for the id of the system's thread; gevent replaces it by another."""
    from _thread import get_ident

    if isinstance(get_ident, types.BuiltinFunctionType):
        return get_ident
    monkey = sys.modules["gevent.monkey"]
    original: Callable[[], int] = monkey.get_original("_thread", "get_ident")
    return original


get_ident = _own_get_ident()


def is_executing(frame: FrameType) -> bool:
    """Return True if the call of `frame` has not returned, even if it is suspended.

    A frame can only be cleared when its call is over; that releases only its local variables.
    """
    try:
        frame.clear()
    except RecursionError:
        raise
    except RuntimeError:
        return True
    return False
