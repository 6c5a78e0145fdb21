"""`Rolling`: rolls up what arrives, in the background of a server."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from tracker.collector.claim import ClaimedError
from tracker.collector.database import StorageError
from tracker.collector.rollups.roller import CLAIM, Roller

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from tracker.collector.database import Database

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
"""How often new events are looked for: for some at a time, a step takes most of its time anyway."""
_RETRY_SECONDS = 10.0
"""How long to wait after the database has failed, or while another process rolls up."""


class Rolling:
    """Rolls events up in a thread of its own, unless another process does.

    No request waits for it. As a context manager it runs within the block, and ends with it after
    the part under way. In SQLite it does nothing.

    Args:
        database: The events. Its owner closes it afterwards.
        tell: Called after each step with how many ids of events are not rolled up yet.
    """

    def __init__(
        self, database: Database, tell: Callable[[int], None] = lambda behind: None
    ) -> None:
        self._database = database
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roll-ups", daemon=True)

    def __enter__(self) -> Self:
        if self._database.dialect == "postgresql":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._database.claimed(CLAIM) as check:
                    roller = Roller(self._database)
                    while not self._stopping.is_set():
                        check()
                        before, pause = roller.done, roller.step()
                        self._tell(roller.behind)
                        if pause is None or (roller.done > before and not roller.behind):
                            pause = _IDLE_SECONDS
                        self._stopping.wait(pause)
            except ClaimedError:
                pass
            except StorageError as error:  # reads go through the events meanwhile
                logger.warning("events are not rolled up now, will retry: %s", error)
            self._stopping.wait(_RETRY_SECONDS)
