"""Writes events to Parquet before they are deleted, with a manifest by which they can be checked.

Files appear whole, and the manifest last: what has no manifest was not finished, and nothing of it
was deleted.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tracker import clock
from tracker.collector.tables import events
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.collector.retention.selection import Selection
    from tracker.collector.store import Store

FORMAT = 1
"""Version of the manifest."""
COLUMNS = tuple(column.key for column in events.c)
"""All columns of the table, in the order of the files."""
_INTEGERS = {"id", "seq", "timestamp_ms", "received_at_ms", "sent_at_ms"}
_READ_SECONDS = 24 * 3_600.0
_ROWS_TOGETHER = 10_000
_GROUP_CHARACTERS = 16_000_000
_FILE_EVENTS = 1_000_000


@dataclass
class Part:
    """What is archived of an outbox: events in order of seq.

    Attributes:
        client_id: Its client.
        outbox_id: Its id.
        events: Number of events.
        first_seq: The number of the first.
        first_digest: Its digest.
        first_chain: Its chain value.
        last_seq: The number of the last.
        last_digest: Its digest.
        last_chain: Its chain value.
    """

    client_id: str
    outbox_id: str
    events: int
    first_seq: int
    first_digest: str
    first_chain: str
    last_seq: int
    last_digest: str
    last_chain: str

    @classmethod
    def of(cls, row: Any) -> Part:
        """Return that of one event."""
        end = (row["seq"], row["digest"], row["chain"])
        return cls(row["client_id"], row["outbox_id"], 1, *end, *end)

    def take(self, row: Any) -> None:
        """Take the next event."""
        self.events += 1
        self.last_seq, self.last_digest, self.last_chain = row["seq"], row["digest"], row["chain"]


@dataclass
class Manifest:
    """What an archive contains.

    Attributes:
        format: Version of this.
        created_at_ms: When it was made, Unix milliseconds.
        before_ms: Its events were received before this time, Unix milliseconds.
        client_id: They are of this client; None: of all.
        type: They are of this type, or begin as in ``llm.*``; None: of all types.
        events: Number of events.
        files: Name, SHA-256, size in bytes and number of events of each file, in order.
        outboxes: What is in them of each outbox, in order.
    """

    format: int
    created_at_ms: int
    before_ms: int
    client_id: str | None
    type: str | None
    events: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)
    outboxes: list[Part] = field(default_factory=list)


def write(store: Store, selection: Selection, folder: Path) -> Path | None:
    """Archive the events of a selection in a folder, durably.

    Returns:
        The manifest; None if there is no event.

    Raises:
        ImportError: if pyarrow is missing.
        OSError: if a file cannot be written.
        StorageError: if the database cannot be read.
    """
    now_ms = int(clock.wall() * 1000)
    moment = datetime.fromtimestamp(now_ms / 1000, tz=timezone.utc)
    name = f"events-{moment:%Y%m%dT%H%M%S}-{now_ms % 1000:03}"
    manifest = Manifest(FORMAT, now_ms, selection.before_ms, selection.client_id, selection.type)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        rows = stack.enter_context(_Rows(store, selection))
        while rows.has_more:
            file = folder / f"{name}-{len(manifest.files) + 1:03}.parquet"
            count = _write_file(file, rows, manifest)
            manifest.files.append(_described(file, count))
            manifest.events += count
    if not manifest.events:
        return None
    path = folder / f"{name}.json"
    with whole_file(path) as out:
        out.write(json.dumps(asdict(manifest), indent=1).encode())
    return path


class _Rows:
    """The events of a selection in the order of client, outbox and seq."""

    def __init__(self, store: Store, selection: Selection) -> None:
        self._stack = ExitStack()
        self._store, self._selection = store, selection
        self._next: Any = None

    def __enter__(self) -> _Rows:
        connection = self._stack.enter_context(self._store.reading(_READ_SECONDS))
        query = text(
            f"SELECT {', '.join(COLUMNS)} FROM events WHERE {self._selection.condition}"  # noqa: S608 - our own words
            " ORDER BY client_id, outbox_id, seq, id"
        ).execution_options(yield_per=_ROWS_TOGETHER)
        result = connection.execute(query, self._selection.values)
        self._rows = iter(self._stack.enter_context(result).mappings())
        self._next = next(self._rows, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def has_more(self) -> bool:
        """Whether there is another event."""
        return self._next is not None

    def take(self) -> Any:
        """Return the next event."""
        row, self._next = self._next, next(self._rows, None)
        return row


def _write_file(path: Path, rows: _Rows, manifest: Manifest) -> int:
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.int64() if name in _INTEGERS else pyarrow.string() for name in COLUMNS}
    schema = pyarrow.schema(list(kinds.items()))
    count = 0
    with (
        whole_file(path) as out,
        parquet.ParquetWriter(out, schema, compression="zstd") as writer,
    ):
        while rows.has_more and count < _FILE_EVENTS:
            group = list(_group(rows, manifest, _FILE_EVENTS - count))
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _group(rows: _Rows, manifest: Manifest, most: int) -> Iterator[dict[str, Any]]:
    size = count = 0
    while rows.has_more and count < min(most, _ROWS_TOGETHER) and size < _GROUP_CHARACTERS:
        row = rows.take()
        count += 1
        size += len(row["data"])
        last = manifest.outboxes[-1] if manifest.outboxes else None
        if last and (last.client_id, last.outbox_id) == (row["client_id"], row["outbox_id"]):
            last.take(row)
        else:
            manifest.outboxes.append(Part.of(row))
        yield dict(row)


def _described(path: Path, count: int) -> dict[str, Any]:
    size = path.stat().st_size
    return {"name": path.name, "sha256": sha256(path), "bytes": size, "events": count}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
