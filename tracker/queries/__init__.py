"""What can be said of the past: SQL over the events of an outbox, or of a collector.

The modules are imported on first use, for whoever only logs needs none of them: that takes a
process that imports `tracker` a third less time beyond SQLAlchemy's.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from tracker.queries import agents, conversations, history, metrics, sessions, usage

__all__ = ["agents", "conversations", "history", "metrics", "sessions", "usage"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
