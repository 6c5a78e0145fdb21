"""`Together`: stores small batches that arrive at the same time in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.concurrency import run_in_threadpool

from tracker import clock
from tracker.collector.batch import parse_batch
from tracker.collector.limits import decode_body
from tracker.collector.receiving import receipt_of
from tracker.collector.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.collector.batch import Batch
    from tracker.collector.gate import Gate
    from tracker.collector.meter import Meter
    from tracker.collector.store import Store

    Receipt = dict[str, Any]

SMALL_BYTES = 16 * 1024
"""Up to so many bytes, as it was sent, a body is small."""
_DECODED_BYTES = 64 * 1024
"""The same for a body without its encoding."""
_NOBODY = ""


class _Body(NamedTuple):
    content: bytes
    encoding: str
    client_id: str


class _Group:
    """Bodies that are stored together, and the task that does it."""

    def __init__(self) -> None:
        self.bodies: list[_Body] = []
        self.task: asyncio.Task[list[Receipt | RefusedError | None]] | None = None


class Together:
    """Takes small bodies, and stores those that wait when it is their turn in one transaction.

    Where many small batches arrive, most of what one costs is its transaction and the change to
    another thread. Each has a receipt of its own, after the commit. It belongs to one event loop.

    Args:
        store: The database.
        gate: Limits how many transactions there are at the same time.
        meter: Counts what is stored.
        most: How many are stored in one transaction at most; with 1, all is to be stored alone.
    """

    def __init__(self, store: Store, gate: Gate, meter: Meter, most: int) -> None:
        self._store = store
        self._gate = gate
        self._meter = meter
        self._most = most if store.dialect == "postgresql" else 1
        self._open: _Group | None = None

    async def receipt(self, body: bytes, encoding: str, client_id: str) -> Receipt | None:
        """Store the events of a body and return the receipt; None if it has to be stored alone.

        Args:
            body: The body as it was sent.
            encoding: ``gzip`` or ``identity``.
            client_id: The client whose key came with it.

        Raises:
            RefusedError: if it is not a batch of this client, or the collector is busy.
            StorageError: if nothing of it was stored, or that is `in_doubt`.
        """
        if self._most == 1 or len(body) > SMALL_BYTES:
            return None
        group = self._open
        if group is None:
            group = self._open = _Group()
            group.task = asyncio.create_task(self._stored(group))
        place = len(group.bodies)
        group.bodies.append(_Body(body, encoding, client_id))
        if len(group.bodies) == self._most:
            self._open = None
        assert group.task is not None  # noqa: S101 - see above
        # Who gives up does not take the others along.
        result = (await asyncio.shield(group.task))[place]
        if isinstance(result, RefusedError):
            raise result
        return result

    async def _stored(self, group: _Group) -> list[Receipt | RefusedError | None]:
        async with contextlib.AsyncExitStack() as passed:
            try:
                await passed.enter_async_context(self._gate.passing(_NOBODY))
            finally:
                if self._open is group:
                    self._open = None
            return await run_in_threadpool(self._store_all, group.bodies)

    def _store_all(self, bodies: Sequence[_Body]) -> list[Receipt | RefusedError | None]:
        begun = clock.monotonic()
        parsed = [_parsed(body) for body in bodies]
        batches = [
            each for each in parsed if each is not None and not isinstance(each, RefusedError)
        ]
        stored = iter(self._store.store_together(batches, time.time_ns() // 1_000_000))
        seconds = clock.monotonic() - begun
        results: list[Receipt | RefusedError | None] = []
        for each in parsed:
            if each is None or isinstance(each, RefusedError):
                results.append(each)
                continue
            found = next(stored)
            if found is not None:
                self._meter.stored(found.accepted, found.duplicates, 0, seconds)
            results.append(None if found is None else receipt_of(each, found))
        return results


def _parsed(body: _Body) -> Batch | RefusedError | None:
    """Return a batch, or why it is refused; None if it is too large to let others wait for it."""
    try:
        return parse_batch(decode_body(body.content, body.encoding, _DECODED_BYTES), body.client_id)
    except RefusedError as error:
        return None if error.status == 413 else error
