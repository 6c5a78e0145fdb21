"""`Site`: one of the two products, for the pages that both have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker.pages.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from tracker.pages.source import Choice, Entry


@dataclass(frozen=True)
class Site:
    """What is around the pages.

    Attributes:
        base: The path below which all pages are: an empty text, or ``"/ui"``.
        title: What the rail calls it.
        choose: Returns the source that a request names. It raises `HTTPException` if there is
            none, or the request may not read it, and `Elsewhere` if another page comes first.
        home: Returns the pages of the rail that are of no source.
        csrf: Returns the value that every form of this visitor has to carry.
        can_leave: Whether visitors sign in, and can sign out.
        parts: The figures that take long.
    """

    base: str
    title: str
    choose: Callable[[Request], Choice]
    csrf: Callable[[Request], str]
    home: Callable[[Request], Sequence[Entry]] = lambda _: ()
    can_leave: bool = False
    parts: Parts = field(default_factory=Parts)


class Elsewhere(Exception):  # noqa: N818 - no error: the request is answered by another page
    """A request is to be answered by a redirect.

    Attributes:
        path: Where to, below the base.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path
