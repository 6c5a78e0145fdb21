"""`Run`: stores the starts of spans, so that those of a process that was killed can be ended.

The process holds the lock of a file beside the outbox, ``.run-`` and a UUID, which each of its
starts names. The kernel releases the lock when the process dies. The process that uploads then ends
what has no end; see `tracker.outbox.maintenance.interrupted`.
"""

from __future__ import annotations

import os
import uuid
import weakref
from typing import TYPE_CHECKING, NamedTuple

from tracker import forks
from tracker.errors import OutboxError
from tracker.outbox import FileLock, paths

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from sqlalchemy import Connection

    from tracker.otel.store import Store

_TRIES = 3


class _Held(NamedTuple):
    """The run of one process: its id and its locked file."""

    id: str
    lock: FileLock


class Run:
    """The run of this process; a forked child has a run of its own. Any thread may use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[int, _Held] = {}  # by process id
        _runs.add(self)

    def started(self, span: ReadableSpan) -> None:
        """Store that a span has started.

        Raises:
            OutboxError, TrackerError: if that is not possible.
        """
        held = self._held.get(os.getpid())
        if held is None:
            mine = self._begin()
            held = self._held.setdefault(os.getpid(), mine)
            if held is not mine:  # another thread was faster
                mine.lock.path.unlink(missing_ok=True)
                mine.lock.close()
        self._store.started(span, held.id)

    def close(self) -> None:
        """Release the lock: what has no end by now is ended as if the process had died."""
        held = self._held.pop(os.getpid(), None)
        if held is not None:
            held.lock.close()

    def restart_in_child(self) -> None:
        """Close the parent's file in a forked child, or it would keep the lock for its parent."""
        for held in self._held.values():
            held.lock.forget()
        self._held.clear()

    def _begin(self) -> _Held:
        path = self._store.tracker.config.outbox_path
        mark = str(self._store.tracker._client.read(_last_seq)).encode()
        for _ in range(_TRIES):
            id_ = uuid.uuid4().hex
            lock = FileLock(paths.run_lock(path, id_), mark, like=path)
            # Between its creation and its lock, the uploader may take it for one that is left over.
            if lock.try_acquire() and not lock.is_replaced():
                return _Held(id_, lock)
            lock.close()
        raise OutboxError(f"no lock for the starts of spans can be had beside {path}")


def _last_seq(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM events").scalar_one())


_runs: weakref.WeakSet[Run] = weakref.WeakSet()


def _restart_in_child() -> None:
    for run in list(_runs):
        run.restart_in_child()


forks.in_child(forks.Stage.RUNS, _restart_in_child)
