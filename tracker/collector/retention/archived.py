"""Checks archives: files, events, chains, and that they join one another and the database."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tracker import canonical
from tracker.collector.batch import ReceivedEvent, has_its_digest
from tracker.collector.retention.archive import FORMAT, Manifest, Part, sha256
from tracker.collector.tables import events
from tracker.erasure import ERASED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

_MOST_PROBLEMS = 100


@dataclass
class Proved:
    """What a check of archives has found.

    Attributes:
        archives: Number of archives.
        events: Number of events in them.
        links: Number of links of chains that are valid.
        joins: How many ends of outboxes join another archive or the database.
        problems: What is wrong, up to 100 sentences.
    """

    archives: int = 0
    events: int = 0
    links: int = 0
    joins: int = 0
    problems: list[str] = field(default_factory=list)

    def object_to(self, problem: str) -> None:
        """Note what is wrong."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


def check(folder: Path, connection: Connection | None = None) -> Proved:
    """Check all archives in a folder.

    A chain that was made with a chain key cannot be followed here: an outbox of which no link is
    valid has one, and is not objected to.

    Args:
        folder: Where the archives are.
        connection: The database whose events they were, to check that they join it, or None.

    Raises:
        ImportError: if pyarrow is missing.
        OSError: if a file cannot be read.
    """
    proved = Proved()
    parts: list[Part] = []
    manifests = sorted(folder.glob("events-*.json"))
    for path in manifests:
        manifest = _read(path, proved)
        if manifest is not None:
            proved.archives += 1
            parts += _check_files(folder, path.name, manifest, proved)
    _check_joins(parts, connection, proved)
    if not manifests:
        proved.object_to(f"there is no archive in {folder}")
    return proved


def _read(path: Path, proved: Proved) -> Manifest | None:
    try:
        told = json.loads(path.read_bytes())
        found = Manifest(**{**told, "outboxes": [Part(**each) for each in told["outboxes"]]})
    except (ValueError, TypeError, KeyError) as error:
        proved.object_to(f"{path.name} is not a manifest: {error}")
        return None
    if found.format != FORMAT:
        proved.object_to(f"{path.name} is of another version: {found.format}")
        return None
    return found


def _check_files(folder: Path, name: str, manifest: Manifest, proved: Proved) -> list[Part]:
    """Check the files of a manifest; return what is in them."""
    walk = _Walk(proved)
    for told in manifest.files:
        path = folder / told["name"]
        if not path.is_file():
            proved.object_to(f"{told['name']} is missing")
        elif sha256(path) != told["sha256"]:
            proved.object_to(f"{told['name']} has changed: its SHA-256 is another one")
        else:
            walk.follow(path)
    walk.end()
    if walk.parts != manifest.outboxes:
        proved.object_to(f"{name} says something else of its outboxes than its files")
    return walk.parts


class _Walk:
    """Follows the events of an archive, in the order of client, outbox and seq."""

    def __init__(self, proved: Proved) -> None:
        self.parts: list[Part] = []
        self._proved = proved
        self._here: set[str] = set()
        self._earlier: set[str] = set()
        self._links = 0
        self._broken: list[int] = []

    def follow(self, path: Path) -> None:
        for row in _rows(path):
            self._proved.events += 1
            fields = (row[name] for name in ReceivedEvent._fields)
            event = ReceivedEvent(*fields)
            # Of an erased event without a salt, the digest is that of what it was.
            bare = event._replace(data=event.data.rstrip(" "))
            if (bare.seal is not None or bare.data != ERASED) and not has_its_digest(bare):
                self._proved.object_to(f"event {event.event_id} has not the digest of its content")
            self._take(row)

    def end(self) -> None:
        """Judge the outbox that was followed last."""
        if self._links and self._broken:
            part = self.parts[-1]
            self._proved.object_to(
                f"the chain of outbox {part.outbox_id} of {part.client_id} is broken at"
                f" {self._broken[0]}"
            )
        self._proved.links += self._links
        self._links, self._broken = 0, []
        self._here, self._earlier = set(), set()

    def _take(self, row: Any) -> None:
        part = self.parts[-1] if self.parts else None
        if part is None or (part.client_id, part.outbox_id) != (row["client_id"], row["outbox_id"]):
            self.end()
            self.parts.append(Part.of(row))
            self._earlier = {canonical.GENESIS} if row["seq"] == 1 else set()
        else:
            if row["seq"] != part.last_seq:
                follows = row["seq"] == part.last_seq + 1
                self._earlier, self._here = (self._here if follows else set()), set()
            part.take(row)
        if self._earlier:
            if any(canonical.chain(each, row["digest"]) == row["chain"] for each in self._earlier):
                self._links += 1
            else:
                self._broken.append(row["seq"])
        self._here.add(row["chain"])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1_000):
            yield from batch.to_pylist()


def _check_joins(parts: list[Part], connection: Connection | None, proved: Proved) -> None:
    """Check that the event after each part, wherever it is, links to the part."""
    starts = {(each.client_id, each.outbox_id, each.first_seq): each for each in parts}
    for part in parts:
        key = (part.client_id, part.outbox_id, part.last_seq + 1)
        following = starts.get(key)
        found = [] if following is None else [(following.first_digest, following.first_chain)]
        if connection is not None:
            mine = zip((events.c.client_id, events.c.outbox_id, events.c.seq), key, strict=True)
            query = select(events.c.digest, events.c.chain)
            query = query.where(*(column == value for column, value in mine))
            found += [(row[0], row[1]) for row in connection.execute(query)]
        if not found:
            continue
        if any(canonical.chain(part.last_chain, digest) == chain for digest, chain in found):
            proved.joins += 1
        elif _has_plain_chain(part):
            proved.object_to(
                f"event {key[2]} of outbox {part.outbox_id} of {part.client_id} does not follow"
                " from the archive"
            )


def _has_plain_chain(part: Part) -> bool:
    """Return whether the chain of a part is known to have no chain key."""
    first = canonical.chain(canonical.GENESIS, part.first_digest)
    return part.first_seq == 1 and first == part.first_chain
