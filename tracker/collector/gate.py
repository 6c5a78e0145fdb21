"""`Gate` and `Bodies`: how much of one client's work, and of everybody's, is under way at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from typing import TYPE_CHECKING

from tracker.collector.refusal import busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Gate:
    """Lets a few through at once, and of one client fewer, so that it never stops another.

    Who has to wait is let in in the order of coming. It belongs to one event loop.

    Args:
        at_once: How many in all.
        of_one: How many of one client.
        seconds: How long anybody waits before being told to come again.
    """

    def __init__(self, at_once: int, of_one: int, seconds: float) -> None:
        self._at_once = at_once
        self._of_one = of_one
        self._seconds = seconds
        self._inside: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def passing(self, client_id: str) -> AsyncIterator[None]:
        """Wait for a place and hold it within the block.

        Raises:
            RefusedError: 503, none became free in time.
        """
        if self._has_room(client_id):
            self._inside[client_id] += 1
        else:
            await self._wait(client_id)
        try:
            yield
        finally:
            self._leave(client_id)

    async def _wait(self, client_id: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (client_id, turn)
        self._waiting.append(entry)
        try:
            await asyncio.wait({turn}, timeout=self._seconds)
        except BaseException:
            if turn.done():
                self._leave(client_id)
            else:
                self._waiting.remove(entry)
            raise
        if not turn.done():
            self._waiting.remove(entry)
            raise busy(f"No turn came within {self._seconds:g} s. Nothing was stored.")

    def _leave(self, client_id: str) -> None:
        self._inside[client_id] -= 1
        if not self._inside[client_id]:
            del self._inside[client_id]
        for entry in self._waiting:
            if self._has_room(entry[0]):
                self._waiting.remove(entry)
                self._inside[entry[0]] += 1
                entry[1].set_result(None)
                return

    def _has_room(self, client_id: str) -> bool:
        return self._inside.total() < self._at_once and self._inside[client_id] < self._of_one


class Bodies:
    """Counts requests that have been let in and the bytes of their bodies that are held.

    It belongs to one event loop.

    Args:
        requests_of_one: Requests of one client.
        bytes_of_one: Bytes of one client's bodies.
        bytes_in_all: Bytes of everybody's.
    """

    def __init__(self, requests_of_one: int, bytes_of_one: int, bytes_in_all: int) -> None:
        self._requests_of_one = requests_of_one
        self._bytes_of_one = bytes_of_one
        self._bytes_in_all = bytes_in_all
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._total = 0

    @contextlib.contextmanager
    def held(self, client_id: str) -> Iterator[Callable[[int], None]]:
        """Count a request within the block; lend what counts bytes of its body.

        Raises:
            RefusedError: 503, too much is held already; for bytes, from what counts them.
        """
        if self._requests[client_id] >= self._requests_of_one:
            raise busy("Too many requests of this client are under way. Nothing was stored.")
        self._requests[client_id] += 1
        mine = 0

        def count(size: int) -> None:
            nonlocal mine
            mine += size
            self._bytes[client_id] += size
            self._total += size
            if self._bytes[client_id] > self._bytes_of_one or self._total > self._bytes_in_all:
                raise busy("Too many bodies are being received. Nothing was stored.")

        try:
            yield count
        finally:
            self._total -= mine
            self._bytes[client_id] -= mine
            self._requests[client_id] -= 1
            if not self._requests[client_id]:
                del self._requests[client_id], self._bytes[client_id]
