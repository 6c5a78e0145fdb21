"""Queries of the events of an outbox or a collector, in SQL.

The modules are imported on first use, since logging needs none of them: without SQLAlchemy's share,
importing `tracker` takes a third less time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from tracker.queries import (
        agents,
        conversations,
        filters,
        history,
        metrics,
        scores,
        sessions,
        traces,
        usage,
    )

__all__ = [
    "agents",
    "conversations",
    "filters",
    "history",
    "metrics",
    "scores",
    "sessions",
    "traces",
    "usage",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
