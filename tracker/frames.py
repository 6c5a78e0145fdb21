"""Facts about calls under way, and the threads of the system that they run in."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def _own_get_ident() -> Callable[[], int]:
    """Return what names the thread of the operating system; gevent puts a greenlet's id there."""
    from _thread import get_ident

    if isinstance(get_ident, types.BuiltinFunctionType):
        return get_ident
    monkey = sys.modules["gevent.monkey"]
    original: Callable[[], int] = monkey.get_original("_thread", "get_ident")
    return original


get_ident = _own_get_ident()


def is_executing(frame: FrameType) -> bool:
    """Return True if the call of `frame` is under way, suspended included; False once it is over.

    Only a call that is over lets its frame be cleared, which frees nothing but its local variables.
    """
    try:
        frame.clear()
    except RecursionError:
        raise
    except RuntimeError:
        return True
    return False
