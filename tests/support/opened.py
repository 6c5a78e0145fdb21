"""The trackers that are open in this process, whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import client

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tracker.client import Client

# The package has no list of them to show: an application knows its own trackers. A test has to
# find those that another test, or a page's code, has left open.
_open = client._registry


def client_of(path: Path) -> Client:
    """Return what the trackers on an outbox share."""
    return _open[path]


def paths() -> set[Path]:
    """Return the outboxes on which trackers are open."""
    return set(_open)


def close_all(*, but: Collection[Path] = (), timeout: float = 0) -> list[Path]:
    """Close all trackers, except those on the outboxes in `but`; return where there were some."""
    left = [path for path in _open if path not in but]
    for path in left:
        _open.pop(path).shut(timeout)
    return left
