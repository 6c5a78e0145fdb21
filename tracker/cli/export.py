"""``tracker-sync export``: stored events as JSON Lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import sys
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place, extra
from tracker.cli.context import existing, spare
from tracker.cli.events import as_dict, as_row, read, state_options
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import events as number_of_events
from tracker.cli.output import printable, to_json
from tracker.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tracker.outbox import StoredEvent

    Write = Callable[[Iterable[StoredEvent], IO[bytes]], int]

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_CHUNK = 500
"""Number of events that are encoded at a time."""
_GROUP_BYTES = 16_000_000
_GROUP_EVENTS = 50_000
"""Limits of a Parquet row group, which is kept in memory."""

_IDS = ("event_id", "type", "agent_id", "session_id", "user_id")
_TIMES = ("timestamp_ms", "delivered_at_ms", "dead_at_ms")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync export > events.jsonl",
        "tracker-sync export --output november.csv --since 2026-11-01",
        "tracker-sync export --output events.parquet --type message.logged --force",
        "tracker-sync export --pending --format csv | head",
    ],
    exits={0: "exported", 1: "no readable outbox, or the file exists or cannot be written"},
)
@click.option(
    "-o",
    "--output",
    "destination",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="The new file; it appears when it is complete, and only this user can read it. "
    "Default: -, for stdout.",
)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    help="Default: by the suffix of the file, otherwise jsonl.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@state_options
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0, max=2**31),
    default=0,
    metavar="N",
    help="Only the newest N. Default: 0, for all.",
)
@click.pass_obj
def export(
    place: Place,
    destination: str,
    format_: str | None,
    state: str | None,
    limit: int,
    *,
    wanted: Given,
    force: bool,
) -> None:
    """Export stored events as JSON Lines, CSV or Parquet.

    Events are in the order of seq and have the field names of `list --json`. In CSV and Parquet,
    `data` is JSON text. In Parquet, which needs the extra [parquet], times are timestamps in UTC
    named timestamp, delivered_at and dead_at. Events are read a few at a time, so any number can be
    exported.
    """
    output = None if destination == "-" else Path(destination)
    kind = format_ or _SUFFIXES.get(output.suffix.lower() if output else "", "jsonl")
    if output is None and kind == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet cannot be shown on a terminal; give --output FILE")
    target = existing(place)
    spare(target, output)
    found = read(target, wanted, limit, state)
    write = _WRITERS[kind]
    if output is None:
        if kind == "csv" and sys.stdout.isatty():  # JSON Lines are ASCII
            found = map(_shown, found)
        write(found, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    like = output if output.exists() else None
    try:
        with whole_file(output, replace=force, like=like) as file:
            written = write(found, file)
    except FileExistsError:
        raise click.ClickException(
            f"{output} exists; give another name, or --force to replace it"
        ) from None
    click.echo(f"{number_of_events(written)} written to {output}")


def _shown(event: StoredEvent) -> StoredEvent:
    """Return an event with control characters escaped, for a terminal."""
    columns: dict[str, Any] = event._asdict()
    texts = {name: printable(columns[name]) for name in columns if isinstance(columns[name], str)}
    return event._replace(**{**columns, **texts})


def _write_jsonl(found: Iterable[StoredEvent], file: IO[bytes]) -> int:
    count = 0
    for event in found:
        file.write(to_json(as_dict(event), indent=None).encode() + b"\n")
        count += 1
    return count


def _write_csv(found: Iterable[StoredEvent], file: IO[bytes]) -> int:
    from tracker.outbox import StoredEvent

    count = 0
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([*StoredEvent._fields, "state"])
    for chunk in _chunks(found):
        writer.writerows(as_row(event).values() for event in chunk)
        count += len(chunk)
        file.write(lines.getvalue().encode(errors="backslashreplace"))
        lines.seek(0)
        lines.truncate()
    file.write(lines.getvalue().encode())
    return count


def _write_parquet(found: Iterable[StoredEvent], file: IO[bytes]) -> int:
    with extra("parquet"):
        import pyarrow
        from pyarrow import parquet

    moment = pyarrow.timestamp("ms", tz="UTC")
    schema = pyarrow.schema(
        [
            pyarrow.field("seq", pyarrow.int64(), nullable=False),
            *((name, pyarrow.string()) for name in _IDS),
            ("timestamp", moment),
            ("data", pyarrow.string()),
            *((name, pyarrow.string()) for name in ("digest", "chain", "state")),
            *((name, moment) for name in ("delivered_at", "dead_at")),
            *((name, pyarrow.string()) for name in ("dead_code", "dead_message")),
            *((name, pyarrow.string()) for name in ("context", "trace", "salt", "sealed")),
        ]
    )
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(found):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _groups(found: Iterable[StoredEvent]) -> Iterator[list[dict[str, Any]]]:
    """Yield the events' columns in groups of limited size."""
    group: list[dict[str, Any]] = []
    size = 0
    for event in found:
        group.append(_columns(event))
        size += len(event.data) + 500
        if size >= _GROUP_BYTES or len(group) >= _GROUP_EVENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _columns(event: StoredEvent) -> dict[str, Any]:
    """Return an event with Parquet's names. Values of a damaged row become text or None."""
    columns: dict[str, Any] = {}
    for name, value in as_row(event).items():
        if name in _TIMES:
            columns[name.removesuffix("_ms")] = value if isinstance(value, int) else None
        elif name == "seq" or value is None or isinstance(value, str):
            columns[name] = value
        else:
            columns[name] = repr(value)
    return columns


def _chunks(found: Iterable[StoredEvent]) -> Iterator[list[StoredEvent]]:
    remaining = iter(found)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


_WRITERS: dict[str, Write] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
