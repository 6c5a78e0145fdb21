"""`Gate` and `Bodies`: limits of concurrent work, per client and in total."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from typing import TYPE_CHECKING

from tracker.collector.refusal import busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Gate:
    """Limits concurrent requests, in total and per client, so that no client blocks another.

    Waiting requests are admitted in order of arrival. It belongs to one event loop.

    Args:
        at_once: Maximum number in total.
        of_one: Maximum number per client.
        seconds: Longest wait before a request is refused.
    """

    def __init__(self, at_once: int, of_one: int, seconds: float) -> None:
        self._at_once = at_once
        self._of_one = of_one
        self._seconds = seconds
        self._inside: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def passing(self, client_id: str) -> AsyncIterator[None]:
        """Wait for a free place and hold it within the block.

        Raises:
            RefusedError: 503 if none became free in time.
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
            raise busy(f"The collector was busy for {self._seconds:g} s. Nothing was stored.")

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
    """Limits the current requests and the bytes of their bodies in memory.

    It belongs to one event loop.

    Args:
        requests_in_all: Maximum number of requests.
        requests_of_one: Maximum number of requests of one client.
        bytes_of_one: Maximum number of bytes of one client's bodies.
        bytes_in_all: Maximum number of bytes of all bodies.
        tell: Called with 1 for each request that begins, and with -1 when it ends.
    """

    def __init__(
        self,
        requests_in_all: int,
        requests_of_one: int,
        bytes_of_one: int,
        bytes_in_all: int,
        tell: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._tell = tell
        self._requests_in_all = requests_in_all
        self._requests_of_one = requests_of_one
        self._bytes_of_one = bytes_of_one
        self._bytes_in_all = bytes_in_all
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._under_way = 0
        self._total = 0

    @contextlib.contextmanager
    def held(self, client_id: str) -> Iterator[Callable[[int], None]]:
        """Count a request within the block; yield a function that counts bytes of its body.

        Raises:
            RefusedError: 503 if there are too many; for bytes, raised by the yielded function.
        """
        if self._requests[client_id] >= self._requests_of_one:
            raise busy("This client has too many requests at once. Nothing was stored.")
        if self._under_way >= self._requests_in_all:
            raise busy("There are too many requests at once. Nothing was stored.")
        self._requests[client_id] += 1
        self._under_way += 1
        self._tell(1)
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
            self._under_way -= 1
            self._tell(-1)
            self._total -= mine
            self._bytes[client_id] -= mine
            self._requests[client_id] -= 1
            if not self._requests[client_id]:
                del self._requests[client_id], self._bytes[client_id]
