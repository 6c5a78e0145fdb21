"""`retain`: archives and deletes events by age."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker import clock
from tracker.collector.retention import archive, deleting, dropping
from tracker.collector.retention.selection import Selection
from tracker.collector.rollups.position import position

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.collector.store import Store

_SECONDS = 3_600.0
_LOOK_AGAIN_SECONDS = 0.05


@dataclass
class Retained:
    """What was done, or would be.

    Attributes:
        events: Number of events that are old enough.
        deleted: How many of them were deleted.
        partitions: Partitions that were dropped as a whole.
        manifest: The manifest of the archive, or None.
    """

    events: int = 0
    deleted: int = 0
    partitions: list[str] = field(default_factory=list)
    manifest: str | None = None


def selected(store: Store, before_ms: int, client_id: str | None, type: str | None) -> Selection:
    """Return the events that were received before a time, as far as all of them are known.

    Raises:
        StorageError: if the database could not be read.
    """
    while not store.horizon.look():  # batches that are on their way, which take seconds at most
        clock.sleep(_LOOK_AGAIN_SECONDS)
    through_id = store.horizon.settled
    with store.reading() as connection:
        rolled = position(connection)
    if rolled is not None:  # what is deleted has to be in the sums
        through_id = min(through_id, rolled)
    return Selection(before_ms, through_id, client_id, type)


def plan(store: Store, selection: Selection) -> Retained:
    """Return what `retain` would do.

    Raises:
        StorageError: if the database could not be read.
    """
    with store.reading(_SECONDS) as connection:
        events = selection.count(connection)
    return Retained(events, partitions=dropping.droppable(store, selection))


def retain(store: Store, selection: Selection, folder: Path | None) -> Retained:
    """Archive the events of a selection if a folder is given, and delete them.

    Whole partitions are dropped; the rest is deleted in slices, so that nobody waits for long. What
    was deleted before it fails is accounted for.

    Raises:
        ImportError: if pyarrow is missing.
        OSError: if the archive cannot be written. Nothing is deleted then.
        StorageError: if the database failed.
    """
    done = plan(store, selection)
    droppable, done.partitions = done.partitions, []
    store.count_on(selection.client_id)
    if folder is not None and done.events:
        manifest = archive.write(store, selection, folder)
        done.manifest = None if manifest is None else str(manifest)
    for name in droppable:
        dropped = dropping.drop(store, name, selection)
        if dropped is not None:
            done.partitions.append(name)
            done.deleted += dropped.deleted
    done.deleted += sum(deleting.delete_all(store, selection))
    store.empty_log()
    return done
