"""`View`: one request for a page of a source, with all that its page function needs."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException

from tracker.clock import monotonic
from tracker.pages.parts import WAIT_SECONDS, Part
from tracker.queries.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection
    from starlette.requests import Request

    from tracker.pages.site import Site
    from tracker.pages.source import Choice, Source

_KEPT = ("environment", "release", "tag")
"""The filters that links to other pages keep."""
_FILTERS = (*_KEPT, "agent", "user", "status", "type", "session", "state", "before")
_MOST_TEXT = 2_000
_MOST_TAGS = 20
_MOST_INTEGER = 2**63 - 1
_DAY_MS = 86_400_000
PERIODS = {"24h": 1, "7d": 7, "14d": 14, "30d": 30}
"""Days, by their name in an address."""


@dataclass(frozen=True)
class Page:
    """What a page function returns.

    Attributes:
        template: The template's name.
        title: What the page is, for the window's title.
        values: The values of the template.
        status: The status of the answer.
    """

    template: str
    title: str
    values: Mapping[str, Any]
    status: int = 200


@dataclass
class View:
    """A request for a page.

    Attributes:
        request: The request.
        site: The site.
        choice: The source, and what addresses of its pages have in their query.
        connection: A connection to the source.
        stamp: The stamp of the source.
        missing: Whether a figure is not there yet.
        old: Whether one is older than the source.
    """

    request: Request
    site: Site
    choice: Choice
    connection: Connection
    stamp: str = ""
    missing: bool = False
    old: bool = False
    _until: float = field(default_factory=lambda: monotonic() + WAIT_SECONDS)

    @property
    def source(self) -> Source:
        """What is read."""
        return self.choice.source

    def text(self, name: str) -> str | None:
        """Return a value of the query; None if it is missing or empty.

        Raises:
            HTTPException: if it is too long.
        """
        return text_of(self.request, name)

    def position(self, name: str) -> int | None:
        """Return a position in a list from the query, or None.

        Raises:
            HTTPException: if it is no such number.
        """
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"\d{1,19}", value, re.ASCII) or int(value) > _MOST_INTEGER:
            raise HTTPException(400, f"The value of {name} is not a position.")
        return int(value)

    def one_of(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """Return a value of the query that has to be one of some words."""
        value = self.text(name)
        return value if value in allowed else default

    @property
    def period(self) -> str:
        """The name of the chosen period."""
        return self.one_of("period", tuple(PERIODS), "7d")

    def since_ms(self) -> int:
        """Return the start of the period, Unix milliseconds."""
        return time.time_ns() // 1_000_000 - PERIODS[self.period] * _DAY_MS

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        """The tags of the query, as in ``tag=site=oslo``."""
        return tags_of(self.request)

    @property
    def is_filtered(self) -> bool:
        """Whether the query leaves out a part of what is stored."""
        return any(self.text(name) for name in _FILTERS)

    def filters(self, **others: Any) -> Filters:
        """Return the filters by environment, release and tag of the query, and others."""
        return Filters(
            environment=self.text("environment"),
            release=self.text("release"),
            tags=self.tags,
            **others,
        )

    def part(self, name: str, make: Callable[[Connection], Any], *key: Any) -> Part:
        """Return a figure that may take long, worked out from the source.

        Args:
            name: Which figure.
            make: Works it out with a connection of its own.
            key: What it depends on besides the filters that links keep.
        """
        found = self._part(name, make, self._until, key)
        self.missing = self.missing or not found.ready
        self.old = self.old or found.awaited
        return found

    def aside(self, name: str, make: Callable[[Connection], Any]) -> Any:
        """Return a figure if it is there, or None; the page neither waits for it nor says so."""
        return self._part(name, make, 0, ()).value

    def _part(
        self, name: str, make: Callable[[Connection], Any], until: float, key: tuple[Any, ...]
    ) -> Part:
        source = self.source
        return self.site.parts.get(
            source.key,
            (name, self.text("environment"), self.text("release"), self.tags, *key),
            lambda: source.read(make),
            until,
            self.stamp,
        )

    def url(self, name: str, **query: Any) -> str:
        """Return the address of a page, which keeps the source and the filters."""
        kept = [
            (each, value)
            for each in _KEPT
            if each not in query
            for value in self.request.query_params.getlist(each)
            if value
        ]
        return address(self.site, name, [*self.choice.query.items(), *kept, *query.items()])

    def here(self, **query: Any) -> str:
        """Return the address of this page with some values of its query changed."""
        rest = [
            (name, value)
            for name, value in self.request.query_params.multi_items()
            if name not in query and name not in ("before", *self.choice.query)
        ]
        name = self.request.url.path.removeprefix(f"{self.site.base}/")
        return address(self.site, name, [*self.choice.query.items(), *rest, *query.items()])


def address(site: Site, name: str, query: list[tuple[str, Any]]) -> str:
    """Return the address of a page; values that are None or empty are left out."""
    said = urlencode([(n, str(v)) for n, v in query if v not in (None, "")], errors="replace")
    return f"{site.base}/{name}" + (f"?{said}" if said else "")


def text_of(request: Request, name: str) -> str | None:
    """Return a value of a query; None if it is missing or empty.

    Raises:
        HTTPException: if it is too long.
    """
    value = request.query_params.get(name, "").replace("\0", "\ufffd")
    if len(value) > _MOST_TEXT:
        raise HTTPException(400, f"The value of {name} is too long.")
    return value or None


def tags_of(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the tags of a query.

    Raises:
        HTTPException: if one has no name or value, or there are too many.
    """
    given = [each for each in request.query_params.getlist("tag") if each]
    pairs = [each.replace("\0", "\ufffd").partition("=") for each in given]
    if len(pairs) > _MOST_TAGS or any(not (name and equals) for name, equals, _ in pairs):
        raise HTTPException(400, "A tag is a name and a value, as in site=oslo.")
    return tuple((name, value) for name, _, value in pairs)
