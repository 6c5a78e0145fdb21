"""`Attempts`: how often an address has tried to sign in and failed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

MOST = 10
"""Failed attempts of an address within `SECONDS`; after them it has to wait."""
SECONDS = 60.0
_MOST_ADDRESSES = 10_000
_LOOPBACK = ("127.0.0.1", "::1")


class Attempts:
    """The failed attempts of the last minute, of the newest addresses. Thread-safe.

    Args:
        clock: Returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._made: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, address: str) -> float:
        """Return the seconds until an address may try; at 0.0 this is an attempt, and counts.

        It counts before it is known to have failed, so that many at once are as many.
        """
        with self._lock:
            now = self._clock()
            made = [each for each in self._made.get(address, ()) if each > now - SECONDS]
            if len(made) >= MOST:
                return made[0] + SECONDS - now
            self._made[address] = [*made, now]
            self._made.move_to_end(address)
            while len(self._made) > _MOST_ADDRESSES:
                self._made.popitem(last=False)
            return 0.0

    def succeeded(self, address: str) -> None:
        """Forget the newest attempt of an address: it has not failed."""
        with self._lock:
            if self._made.get(address):
                self._made[address].pop()


def address_of(request: Request) -> str:
    """Return the address that a request came from.

    That is what a proxy on this machine says last, since every other request from here would count
    as the same address. From elsewhere anybody could say anything.
    """
    peer = request.client.host if request.client else ""
    said = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return said[:64] if said and peer in _LOOPBACK else peer
