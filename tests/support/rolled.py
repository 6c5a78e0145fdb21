"""A client whose events are rolled up from time to time."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.support.sources import Logged, Source
from tracker.collector import erasure
from tracker.collector.rollups.reads import reads_of
from tracker.collector.rollups.roller import Roller
from tracker.collector.tables import events_of
from tracker.queries.conversations import conversation_page
from tracker.queries.filters import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.collector.store import Store
    from tracker.queries.conversations import Conversation
    from tracker.queries.filters import Filters


def exact_conversations(
    store: Store, client_id: str, wanted: Filters = EVERYTHING, status: str | None = None
) -> list[Conversation]:
    """Return all conversations of a client that match, from all events."""
    of = events_of(client_id)
    with store.reading() as connection:
        return conversation_page(connection, wanted, status, None, events=of).conversations


def paged_conversations(
    store: Store,
    client_id: str,
    wanted: Filters = EVERYTHING,
    status: str | None = None,
    limit: int = 50,
) -> list[Conversation]:
    """Return the same from the pages that a collector answers with."""
    found: list[Conversation] = []
    before = None
    while True:  # a page may end early, for want of time
        with store.reading() as connection:
            page = reads_of(client_id).conversations(connection, wanted, status, limit, before)
        found += page.conversations
        before = page.next
        if before is None:
            return found


class RolledClient:
    """A client whose events are rolled up from time to time."""

    def __init__(self, store: Store, part: int = 7, client_id: str | None = None) -> None:
        self.client_id = client_id or f"client-{uuid.uuid4()}"
        self.store = store
        self._roller = Roller(store, part)
        self.ids: list[str] = []

    def log(self, events: Sequence[Logged]) -> None:
        with self.store.writing(self.client_id) as connection:
            source = Source(connection, events_of(self.client_id), self.client_id, self.ids)
            source.store(events)

    def erase(self, numbers: Sequence[int]) -> None:
        """Erase events, by the order in which they were logged."""
        named = [self.ids[number] for number in numbers if number < len(self.ids)]
        with self.store.writing(self.client_id) as connection:
            erasure.erase(connection, self.client_id, named)
            source = Source(connection, events_of(self.client_id), self.client_id, self.ids)
            source.store([Logged("compliance.erased", None, {"event_ids": named})])

    def roll(self, steps: int | None = None) -> None:
        """Roll up all that is there, or so many parts of it."""
        while steps is None or steps > 0:
            if self._roller.step() is None:
                return
            steps = None if steps is None else steps - 1
