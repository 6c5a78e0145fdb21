"""`Completeness`: checks outboxes in the background, and remembers what was found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tracker.clock import monotonic
from tracker.collector.database import StorageError
from tracker.collector.ui.standing import Standing
from tracker.pages.parts import WAIT_SECONDS, Parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker.collector.counts import OutboxCount
    from tracker.collector.integrity import OutboxReport
    from tracker.collector.store import Store

logger = logging.getLogger(__name__)

_CHECKS = "checks"


class Figures(Parts):
    """The figures of all pages; each page shows what was found about outboxes, too."""

    def version(self, whose: str) -> int:
        """Return a number that grows when a figure changes that a page of a source may show."""
        return super().version(whose) + super().version(_CHECKS)


class Completeness:
    """Counts and checks outboxes, a few at once, each once for everybody.

    Args:
        store: The database.
        figures: What works in the background.
    """

    def __init__(self, store: Store, figures: Figures) -> None:
        self._store = store
        self._figures = figures

    def counts(self, client_id: str | None, stamp: str) -> list[OutboxCount] | None:
        """Return the counts of a client's outboxes, of all clients' for None.

        None is returned while they are counted for the first time.

        Args:
            client_id: The client.
            stamp: What differs when something was received since.

        Raises:
            StorageError: if the database failed.
        """
        found: list[OutboxCount] | None = self._figures.get(
            _CHECKS,
            client_id,
            lambda: self._store.outbox_counts(client_id),
            monotonic() + WAIT_SECONDS,
            stamp,
        ).value
        return found

    def standings(self, counts: Iterable[OutboxCount], most: int) -> list[Standing]:
        """Return what is known of outboxes, the worst first, and check those at the top again.

        Args:
            counts: Their counts.
            most: How many of them are to be checked.
        """
        found = [Standing(each, self._known(each)) for each in counts]
        found.sort(key=lambda each: (*each.rank, each.count.client_id, each.count.outbox_id))
        for each in found[:most]:
            if not each.is_current:
                count = each.count
                stamp = f"{count.events} {count.highest_seq} {count.refused}"
                self._check(count.client_id, count.outbox_id, stamp)
        return found

    def check_whole(self, client_id: str, outbox_id: str) -> None:
        """Have an outbox checked from its first event on, whatever was found before."""
        self._figures.forget(_CHECKS, (client_id, outbox_id))
        self._check(client_id, outbox_id, "", whole=True)

    def _known(self, count: OutboxCount) -> OutboxReport | None:
        part = self._figures.known(_CHECKS, (count.client_id, count.outbox_id))
        found: OutboxReport | None = None if part is None else part.value
        return found

    def _check(self, client_id: str, outbox_id: str, stamp: str, *, whole: bool = False) -> None:
        def look() -> OutboxReport | None:
            try:
                return self._store.outbox_report(client_id, outbox_id, whole=whole)
            except StorageError as error:
                logger.warning("an outbox could not be checked: %s", error)
                return None

        self._figures.get(_CHECKS, (client_id, outbox_id), look, 0, stamp)
