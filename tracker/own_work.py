"""Own work: what this package does itself, which nobody records on its behalf.

Instrumentors make spans and log records of every SQL statement and request in the process, those of
the outbox and of uploads included. Each would be an event, and storing and uploading that event
would make more: without end where uploads fail. So what starts inside `run`, or in a thread that
has called `stay`, is passed over; OpenTelemetry's instrumentors, if loaded, are told not to begin.

The mark is a context variable that is set in a copy of the context: however a call ends, a signal
at any line included, nothing of it stays.
"""

from __future__ import annotations

import contextvars
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")

_own: ContextVar[bool] = ContextVar("tracker_own_work", default=False)

watched = False
"""Whether anything in this process makes events of what it observes. Otherwise no mark is needed,
and a logging call does not pay for one."""


def watch() -> None:
    """Mark own work from now on: something begins to observe this process."""
    global watched
    watched = True


def is_own() -> bool:
    """Return True inside own work."""
    return _own.get()


def run(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `function` returns; what it does is own work."""
    if not watched or _own.get():
        return function(*args, **kwargs)
    result: R = contextvars.copy_context().run(_marked, function, *args, **kwargs)
    return result


def stay() -> None:
    """Mark whatever this thread does from now on; called again, see whether OpenTelemetry came."""
    _own.set(True)
    _suppress()


def _marked(function: Any, *args: Any, **kwargs: Any) -> Any:
    _own.set(True)
    _suppress()
    return function(*args, **kwargs)


def _suppress() -> None:
    """Tell OpenTelemetry's instrumentors, if its API is loaded, to make no spans here."""
    api: Any = sys.modules.get("opentelemetry.context")
    key = getattr(api, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is not None and api.get_value(key) is None:
        api.attach(api.set_value(key, True))
