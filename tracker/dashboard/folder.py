"""`Outboxes`: the one outbox of a dashboard, or all in a folder."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from tracker.dashboard.outbox_source import OutboxSource
from tracker.dashboard.standing import standing
from tracker.errors import OutboxError
from tracker.pages.account import UNREADABLE
from tracker.pages.site import Elsewhere
from tracker.pages.source import Choice, Entry, UnreadableError
from tracker.pages.view import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from starlette.requests import Request

NAME = "outbox"
"""Of the outbox in an address."""


@dataclass(frozen=True)
class Listed:
    """An outbox of the list.

    Attributes:
        source: The outbox.
        values: What `standing` says of it; None if it cannot be read.
        error: Why not.
    """

    source: OutboxSource
    values: dict[str, Any] | None
    error: str = ""


class OneOutbox:
    """A dashboard over one outbox."""

    def __init__(self, source: OutboxSource) -> None:
        self._choice = Choice(source)

    def choose(self, _request: Request) -> Choice:
        """Return the outbox."""
        return self._choice

    def home(self, _request: Request) -> Sequence[Entry]:
        """Return the pages that are of no outbox: none."""
        return ()


class EveryOutbox(OneOutbox):
    """A dashboard over all outboxes of a folder, those included that come later.

    Args:
        find: Yields the paths of the outboxes in the folder but those given. Those were opened
            here, and no other code may open a file that SQLite has open.
    """

    def __init__(self, find: Callable[[Collection[Path]], Iterable[Path]]) -> None:
        self._find = find
        self._known: dict[Path, OutboxSource] = {}
        self._lock = threading.Lock()

    def choose(self, request: Request) -> Choice:
        """Return the outbox that a request names.

        Raises:
            Elsewhere: if it names none.
            HTTPException: if there is none of that name.
        """
        name = text_of(request, NAME)
        if name is None:
            raise Elsewhere("/outboxes")
        for source in self.sources():
            if source.key == name:
                return Choice(source, {NAME: name})
        raise HTTPException(404, "There is no outbox of that name in this folder.")

    def home(self, _request: Request) -> Sequence[Entry]:
        """Return the list of outboxes, for the rail."""
        return (Entry("outboxes", "All outboxes", len(self._known) or None),)

    def sources(self) -> list[OutboxSource]:
        """Return the outboxes that are there now, by name.

        Raises:
            HTTPException: if the folder cannot be read.
        """
        with self._lock:
            try:
                for path in self._find(self._known):
                    self._known[path] = OutboxSource(path, path.name)
            except OutboxError as error:
                raise HTTPException(503, str(error)) from error
            return [self._known[path] for path in sorted(self._known)]

    def listed(self) -> list[Listed]:
        """Return the outboxes with their accounts, those first that need a look."""
        found = [_look(source) for source in self.sources()]
        order = {"red": 0, "amber": 1, "green": 2, "grey": 3}
        found.sort(
            key=lambda each: 0 if each.values is None else order[each.values["sentence"].lamp]
        )
        return found


def _look(source: OutboxSource) -> Listed:
    def values(connection: Any) -> dict[str, Any]:
        return standing(source.status(connection), source.command, runs=source.uploader_runs())

    try:
        return Listed(source, source.read(values))
    except UnreadableError as error:
        return Listed(source, None, error.reason)


__all__ = ["UNREADABLE", "EveryOutbox", "Listed", "OneOutbox"]
