"""`KnownKeys`: the keys of requests, looked up once in a while where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.concurrency import run_in_threadpool

from tracker import clock
from tracker.collector.meter import Meter
from tracker.sealed.seal import hash_of

if TYPE_CHECKING:
    from tracker.collector.gate import Gate
    from tracker.collector.key_watch import KeyWatch
    from tracker.collector.keys import ApiKey, Keys

SECONDS = 600.0
"""How long an answer of the database is used. Each change of keys ends that at once; so this is for
a device that sends each half minute, and whose requests reach one of several processes."""
MOST = 100_000
"""How many keys are known at most, which takes some 50 MB."""


class _Known(NamedTuple):
    key: ApiKey
    era: int
    until: float


class KnownKeys:
    """Finds the key of a request, in memory or in the database.

    Only that a key is valid is remembered, and only while each change of keys is heard: a revoked
    key is out when PostgreSQL has told of it, which takes milliseconds. It belongs to one event
    loop.

    Args:
        keys: The keys in the database.
        lookups: Limits the concurrent queries.
        watch: Tells of changes; None asks the database for each request.
        meter: Counts where keys were found.
        most: How many keys are known at most; of more, those that were looked up last.
    """

    def __init__(
        self,
        keys: Keys,
        lookups: Gate,
        watch: KeyWatch | None = None,
        meter: Meter | None = None,
        most: int = MOST,
    ) -> None:
        self._most = most
        self._meter = meter or Meter()
        self._keys = keys
        self._lookups = lookups
        self._watch = watch
        self._known: dict[bytes, _Known] = {}  # those that were looked up last are at the end

    async def find(self, key: str) -> ApiKey | None:
        """Return the description of `key`, or None if it is unknown or revoked.

        Raises:
            StorageError: if the database failed.
            RefusedError: 503 if too many look-ups are under way.
        """
        era = None if self._watch is None else self._watch.era()
        if era is None:
            return await self._look_up(key)
        now, hashed = clock.monotonic(), hash_of(key)
        known = self._known.get(hashed)
        if known is not None and known.era == era and now < known.until:
            self._meter.looked_up(known=True)
            return known.key
        found = await self._look_up(key)
        self._known.pop(hashed, None)
        if found is not None:
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            # With the era from before the query: a change since then makes it useless.
            self._known[hashed] = _Known(found, era, now + SECONDS)
        return found

    async def _look_up(self, key: str) -> ApiKey | None:
        self._meter.looked_up(known=False)
        async with self._lookups.passing(""):
            return await run_in_threadpool(self._keys.find, key)
