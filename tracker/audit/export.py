"""Writing an audit export; `tracker.audit.lines` describes the file."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tracker import canonical
from tracker._version import __version__
from tracker.audit import lines
from tracker.audit.lines import Manifest, Seal
from tracker.errors import ValidationError
from tracker.events import Event
from tracker.outbox import chain_key, identity, tables, verify
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    import os

    from sqlalchemy import Connection

    from tracker.outbox import Gap

_ROWS = f"""
SELECT seq, {tables.EVENT}, chain,
       timestamp_ms >= ? AND timestamp_ms < ?
FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq
"""
_EARLIEST, _LATEST = -(2**63), 2**63 - 1


def export(
    connection: Connection,
    path: str | os.PathLike[str],
    since_ms: int | None = None,
    until_ms: int | None = None,
    key: bytes | None = None,
) -> Manifest:
    """Write the events logged from `since_ms` until just before `until_ms`, in one snapshot.

    Raises:
        ValidationError: if `path` exists, or the file cannot be written; then no file is created.
    """
    connection.exec_driver_sql("BEGIN")
    try:
        with whole_file(Path(path)) as file:
            manifest = _Export(connection, file, Seal(key)).write(since_ms, until_ms)
    except FileExistsError:
        raise ValidationError(
            "path", f"is {str(path)!r}, which exists; give the path of a new file"
        ) from None
    except OSError as error:
        raise ValidationError(
            "path", f"is {str(path)!r}, which cannot be written: {error.strerror}"
        ) from error
    connection.exec_driver_sql("ROLLBACK")  # after an error, the caller closes the connection
    return manifest


@dataclass
class _Export:
    """An export that is being written."""

    connection: Connection
    file: IO[bytes]
    seal: Seal
    events: int = 0
    others: int = 0
    removed: int = 0
    first_chain: str | None = None
    last_chain: str | None = None

    def write(self, since_ms: int | None, until_ms: int | None) -> Manifest:
        whose = identity.read(self.connection)
        window = (
            _EARLIEST if since_ms is None else since_ms,
            _LATEST if until_ms is None else until_ms,
        )
        first, last = self.connection.exec_driver_sql(
            "SELECT min(seq), max(seq) FROM events WHERE timestamp_ms >= ? AND timestamp_ms < ?",
            window,
        ).one()
        gaps = verify.read_gaps(self.connection)
        memory = chain_key.read(self.connection)
        head = {
            "format": lines.FORMAT,
            "version": lines.VERSION,
            "outbox_id": whose.outbox_id,
            "chain_before": None if first is None else self._chain_before(first, gaps),
            "chain_key_check": memory.check,
            "keyed_from_start": memory.from_start,
        }
        self._add(lines.encode(head))
        if first is not None:
            self._add_rows(window, first, last, gaps)
        manifest = Manifest(
            sdk_version=__version__,
            exported_at_ms=time.time_ns() // 1_000_000,
            outbox_id=whose.outbox_id,
            client_id=whose.client_id,
            since_ms=since_ms,
            until_ms=until_ms,
            events=self.events,
            others=self.others,
            removed=self.removed,
            first_seq=first,
            last_seq=last,
            first_chain=self.first_chain,
            last_chain=self.last_chain,
            seal_key_check=self.seal.key_check,
        )
        self.file.write(lines.encode_manifest(manifest, self.seal))
        return manifest

    def _chain_before(self, first: int, gaps: dict[int, Gap]) -> str | None:
        if first == 1:
            return canonical.GENESIS
        query = "SELECT chain FROM events WHERE seq = ?"
        found = self.connection.exec_driver_sql(query, (first - 1,)).scalar()
        ends = (gap.chain for gap in gaps.values() if gap.last == first - 1)
        chain = next(ends, None) if found is None else found
        return chain if isinstance(chain, str) else None

    def _add_rows(
        self, window: tuple[int, int], first: int, last: int, gaps: dict[int, Gap]
    ) -> None:
        following = first
        for seq, *columns, chain, wanted in self.connection.exec_driver_sql(
            _ROWS, (*window, first, last)
        ):
            event = Event(*columns)
            while following != seq and following in gaps:
                gap = gaps[following]
                self._add(_removed_line(following, gap))
                self.removed += gap.last - following + 1
                following = gap.last + 1
            place = {"seq": seq, "digest": str(event.digest), "chain": str(chain)}
            if wanted:
                self.events += 1
                self._add(_event_line(event, place))
            else:
                self.others += 1
                self._add(lines.encode(place))
            self.first_chain = self.first_chain or place["chain"]
            self.last_chain = place["chain"]
            following = seq + 1

    def _add(self, line: bytes) -> None:
        self.seal.add(line)
        self.file.write(line)


def _removed_line(first: int, gap: Gap) -> bytes:
    fields: dict[str, Any] = {"removed": [first, gap.last], "chain": str(gap.chain)}
    return lines.encode(fields if gap.proof is None else {**fields, "proof": str(gap.proof)})


def _event_line(event: Event, place: dict[str, Any]) -> bytes:
    try:
        line = event.wire(place["seq"], place["chain"])
        json.loads(line)
        return line.encode() + b"\n"
    except (TypeError, ValueError, AttributeError, RecursionError):
        return lines.encode({**place, "damaged": repr(event[:7])})
