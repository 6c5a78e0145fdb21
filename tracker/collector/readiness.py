"""`Readiness`: whether a batch would be stored, answered within two seconds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from tracker.collector.database import StorageError
from tracker.collector.refusal import RefusedError

if TYPE_CHECKING:
    from tracker.collector.store import Store

SECONDS = 2.0
"""How long a request waits for the answer."""


class Readiness:
    """Tries the store, once at a time for all waiting requests.

    It belongs to one event loop.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking: asyncio.Task[None] | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """Be ready no more, for good."""
        self._is_stopping = True

    async def check(self) -> None:
        """Check that the database stores a batch, or has stored one within the last second.

        Raises:
            StorageError: if it does not, or not in time.
            RefusedError: 503 if this process is about to end.
        """
        if self._is_stopping:
            raise RefusedError(503, "stopping", "The collector is about to end.")
        if self._store.has_just_stored():
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(run_in_threadpool(self._store.check))
        asking = self._asking
        await asyncio.wait({asking}, timeout=SECONDS)
        if not asking.done():
            raise StorageError(f"the database did not accept a trial write within {SECONDS:g} s")
        asking.result()
